"""A Hugging Face data set, from the hub or a local folder, as one Parquet file; cut between any two rows."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from clip_operator.errors import JobError, RequestError
from clip_operator.inputs.hugging_face_files import OwnFiles
from clip_operator.inputs.hugging_face_parquet import write_parquet
from clip_operator.inputs.hugging_face_version import folder_version
from clip_operator.inputs.input import LocalInput, check_version, fragment_of
from clip_operator.request import Shard
from clip_operator.storage import ObjectInfo, dataset_name
from clip_operator.tables import WHOLE, FileType, Span, TableFormat

_SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk leaves in the folder it is given
_LONGEST_PROBLEM = 300


@dataclass(frozen=True)
class DatasetName:
    """What ``hf:NAME[:config][:split]`` says. With two parts the second is the split, as in DataFlow's storage."""

    uri: str
    name: str
    config: str | None
    split: str | None

    @classmethod
    def parse(cls, uri: str) -> DatasetName:
        """Take the URI apart.

        :raises RequestError: it has too many parts, or an empty one.
        """
        name, *parts = (dataset_name(uri) or "").split(":")
        if len(parts) > 2 or not all((name, *parts)):
            raise RequestError(f"{uri!r} names no data set; write hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT")
        config, split = parts if len(parts) == 2 else (None, parts[0] if parts else None)
        return cls(uri, name, config, split)

    @property
    def folder(self) -> Path | None:
        """The local folder it names, if it names one, links followed."""
        path = Path(self.name)
        return path.resolve() if path.is_dir() else None


@dataclass(frozen=True)
class HuggingFaceDataset:
    """One split of a data set. It is not stored as a table that could be read in part, so it is written to Parquet.

    Images stay as they are: structs of ``bytes`` and ``path``.

    :param rows: the ``datasets.Dataset``.
    :param image_folders: where the image files lie that it names instead of holding them.
    """

    info: ObjectInfo
    rows: Any
    image_folders: tuple[Path, ...]
    columns_of: ClassVar[tuple[int, ...]] = ()
    partitions: ClassVar[None] = None

    @property
    def file_type(self) -> FileType:
        return FileType(TableFormat.PARQUET)

    @property
    def files(self) -> tuple[ObjectInfo, ...]:
        return ()

    def cut(self, rows_at_most: int, /) -> tuple[Span, ...]:
        total = len(self.rows)
        starts = range(0, max(total, 1), rows_at_most)
        stops = [min(start + rows_at_most, total) for start in starts]
        return tuple(Span(start, stop, start, stop - start) for start, stop in zip(starts, stops, strict=True))

    def fetch(self, folder: Path, shard: Shard | None = None) -> LocalInput:
        rows = self.rows
        if shard is not None:
            check_version(self.info, shard)
            rows = rows.select(range(shard.start, shard.stop))
        path = folder / "input"
        with _errors_explained(self.info.uri):
            write_parquet(rows, path, self.image_folders)
        return LocalInput(path, self.file_type, WHOLE if shard is None else fragment_of(shard))


def find_dataset(uri: str) -> HuggingFaceDataset:
    """Load a data set through the package ``datasets``: what it downloads is kept in its cache folder.

    Code that comes with a data set is never run, and no file is read that is not its own.

    :raises RequestError: the package is missing, or the data set has no such configuration or split.
    :raises JobError: the data set cannot be loaded, or names files of others.
    """
    named = DatasetName.parse(uri)
    try:
        datasets: Any = importlib.import_module("datasets")  # it is untyped
    except ImportError as error:
        raise RequestError(
            f"{uri}: reading a Hugging Face data set needs the package datasets ({error}); "
            "pip install 'datasets>=4' where the scoring runs"
        ) from None
    folder = named.folder
    own = OwnFiles(uri, str(folder or named.name), folder is not None)
    with _no_progress_bars(datasets), _errors_explained(uri):
        own.check_descriptions()
        splits = _load(datasets, named, own)
    split = _chosen(named, splits)
    rows = splits[split]
    if folder is None:
        # The hub's commit is in it, and nothing that differs between two machines.
        etag, size = f"{rows._fingerprint}-{len(rows):x}", _stated_bytes(rows)
        return HuggingFaceDataset(ObjectInfo(uri, size, etag), rows, (_hub_cache(named.name),))
    with _errors_explained(uri):
        etag, size = folder_version(folder, own.holds, _is_saved(folder), (named.config or "", split, str(len(rows))))
    return HuggingFaceDataset(ObjectInfo(uri, size, etag), rows, own.folders)


def _load(datasets: Any, named: DatasetName, own: OwnFiles) -> dict[str, Any]:
    """Return the data set's splits by name."""
    folder = named.folder
    if folder is not None and _is_saved(folder):
        if named.config is not None:
            raise RequestError(
                f"{named.uri}: what save_to_disk wrote has no configurations; write hf:{named.name}:SPLIT"
            )
        saved = datasets.load_from_disk(str(folder))
        return dict(saved) if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    with own.alone(datasets.data_files):
        builder = _builder(datasets, named, str(folder or named.name))
    own.check_reader(builder)
    builder.download_and_prepare()
    return dict(builder.as_dataset())


def _builder(datasets: Any, named: DatasetName, place: str) -> Any:
    """Return what reads the configuration that is asked for."""
    try:
        return datasets.load_dataset_builder(place, named.config)
    except ValueError as error:
        configs = datasets.get_dataset_config_names(place)
        if named.config in configs or (named.config is None and len(configs) < 2):
            raise
        problem = f"has no configuration {named.config!r}" if named.config else "has several configurations"
        raise RequestError(
            f"{named.uri}: the data set {problem}; name one of {', '.join(configs)}, as in "
            f"hf:{named.name}:{configs[0]}:{named.split or 'train'}"
        ) from error


def _chosen(named: DatasetName, splits: dict[str, Any]) -> str:
    if named.split is None and len(splits) == 1:
        return next(iter(splits))
    if named.split in splits:
        return str(named.split)
    problem = "has several splits" if named.split is None else f"has no split {named.split!r}"
    config = f":{named.config}" if named.config else ""
    raise RequestError(
        f"{named.uri}: the data set {problem}; name one of {', '.join(splits)}, as in "
        f"hf:{named.name}{config}:{next(iter(splits), 'train')}"
    )


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _SAVED)


def _stated_bytes(rows: Any) -> int:
    stated = (rows.info.splits or {}).get(str(rows.split))
    return int(stated.num_bytes if stated is not None and stated.num_bytes else rows.data.nbytes)


def _hub_cache(name: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"


@contextmanager
def _no_progress_bars(datasets: Any) -> Iterator[None]:
    """Keep the bars out of the log of a task, where every step of one is a line."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    switches = []
    if datasets.is_progress_bar_enabled():
        datasets.disable_progress_bars()
        switches.append(datasets.enable_progress_bars)
    if not are_progress_bars_disabled():
        disable_progress_bars()
        switches.append(enable_progress_bars)
    try:
        yield
    finally:
        for switch_on in switches:
            switch_on()


@contextmanager
def _errors_explained(uri: str) -> Iterator[None]:
    try:
        yield
    except (RequestError, JobError, MemoryError):
        raise
    except Exception as error:  # the package lets through what all its readers and its network raise
        cause = error.__cause__ or error
        problem = " ".join(str(cause).split())[:_LONGEST_PROBLEM]
        raise JobError(f"the data set {uri} cannot be loaded: {type(cause).__name__}: {problem}") from error
