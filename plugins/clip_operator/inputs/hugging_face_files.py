"""Which files a Hugging Face data set may consist of: those below its folder, or of its own repository on the hub."""

from __future__ import annotations

import json
import os
import posixpath
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clip_operator.errors import JobError
from clip_operator.storage import display

# Readers of the package whose files hold what they say. Others follow names in their files (HDF5, Lance), or might.
_READERS = frozenset({"arrow", "cache", "csv", "imagefolder", "json", "parquet", "text", "webdataset"})

# What the package reads of a folder, whatever it consists of.
_DESCRIPTIONS = (
    "README.md",
    ".huggingface.yaml",
    "dataset_infos.json",
    "dataset_dict.json",
    "dataset_info.json",
    "state.json",
)

_MOST_SHOWN = 200
_RESOLVING = threading.Lock()


class OwnFiles:
    """The files that are a data set's own. What it says of itself was written by anybody, and may name others.

    :param uri: the input, for messages.
    :param name: its folder, absolute and without links; or its name on the hub.
    :param is_folder: which of them it is.
    """

    def __init__(self, uri: str, name: str, is_folder: bool) -> None:
        self._uri = uri
        self._name = name
        self.folders = _folders(Path(name)) if is_folder else ()
        """Where they lie, links followed; nowhere for what comes from the hub."""
        self._is_folder = is_folder
        # Everything in a storage bucket of the hub; in a repository, one commit, with a slash behind it.
        self._on_hub = re.compile(rf"hf://(datasets/{re.escape(name)}@[^/]+|{re.escape(name)})/")

    def check(self, places: Iterable[str]) -> None:
        """Look at files, or at patterns of files, without opening any.

        :raises JobError: one is not the data set's own, or may lead to what is not.
        """
        for place in places:
            if not self._is_own(place):
                raise self._refusal(place)

    def check_descriptions(self) -> None:
        """Look at the files in which a folder describes itself, and at what ``save_to_disk`` has written into them.

        :raises JobError: one is a link to elsewhere, or names a file that is not the data set's own.
        """
        if self._is_folder:
            splits = self._described(self._name, "dataset_dict.json").get("splits", ())
            for split in ("", *splits):
                folder = posixpath.join(self._name, split)
                self.check((folder, *(posixpath.join(folder, name) for name in _DESCRIPTIONS)))
                files = self._described(folder, "state.json").get("_data_files", ())
                self.check(posixpath.join(folder, file["filename"]) for file in files)

    def check_reader(self, builder: Any) -> None:
        """Look at what will read a data set, and what it will read.

        :param builder: a ``datasets.DatasetBuilder``, which has not been told to read yet.
        :raises JobError: a file is not the data set's own, or its files could make the reader follow names.
        """
        for files in (builder.config.data_files or {}).values():
            self.check(files)
        if builder.name not in _READERS:
            raise JobError(
                f"{self._uri}: data sets of the kind {builder.name} are not read, for their files may name others; "
                "save it with save_to_disk or as Parquet, and read that"
            )

    def holds(self, path: Path) -> bool:
        """Tell whether a file is below the folder, links followed."""
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(folder) for folder in self.folders)

    @contextmanager
    def alone(self, data_files: Any) -> Iterator[None]:
        """Have the package find no other files than these in the block, and ask no store and no host for others.

        Its function that finds files by their patterns is the one place that all of them go through, those in
        ``README.md`` among them, and it opens what it is told to: it is exchanged meanwhile.

        :param data_files: the module ``datasets.data_files``.
        :raises JobError: when the block ends, if something else was asked for.
        """
        found, this_thread = data_files.resolve_pattern, threading.get_ident()
        refused: list[JobError] = []
        page = f"{data_files.config.HF_ENDPOINT}/datasets/{self._name}/resolve/"  # the repository's other name

        def named(place: str) -> str:
            return f"hf://datasets/{self._name}@{place[len(page) :]}" if place.startswith(page) else place

        def found_among_own(pattern: str, base_path: str, *rest: Any, **options: Any) -> list[str]:
            if threading.get_ident() != this_thread:  # somebody else's data set
                return list(found(pattern, base_path, *rest, **options))
            try:
                start = named(base_path)
                commit = self._on_hub.match(f"{start}/")
                self._check_at(commit, [named(pattern) if urlsplit(pattern).scheme else posixpath.join(start, pattern)])
                places = list(found(pattern, base_path, *rest, **options))
                self._check_at(commit, places)
            except JobError as error:
                refused.append(error)
                raise
            return places

        with _RESOLVING:
            data_files.resolve_pattern = found_among_own
            try:
                yield
            except Exception:
                if not refused:
                    raise
            finally:
                data_files.resolve_pattern = found
        if refused:  # the package may have gone on without, with what it had of the data set before
            raise refused[0]

    def _check_at(self, commit: re.Match[str] | None, places: Iterable[str]) -> None:
        for place in places:
            if not self._is_folder and not (commit and place.startswith(commit[0])):
                raise self._refusal(place)
            self.check([place])

    def _is_own(self, place: str) -> bool:
        own = f"{self._name}/" if place.startswith(f"{self._name}/") else ""  # whose name is no pattern
        fixed = own + re.split(r"[*?\[]", place.removeprefix(own), maxsplit=1)[0]
        if "::" in place or ".." in place[len(fixed) :].split("/"):
            return False
        if not self._is_folder:
            return bool(self._on_hub.match(place)) and ".." not in fixed.split("/")
        start = Path(place if fixed == place else fixed.rpartition("/")[0])
        return "://" not in place and self.holds(start) and self.holds(Path(place))

    def _described(self, folder: str, name: str) -> dict[str, Any]:
        path = posixpath.join(folder, name)
        if not Path(path).is_file():
            return {}
        self.check([path])
        return dict(json.loads(Path(path).read_bytes()))

    def _refusal(self, place: str) -> JobError:
        return JobError(
            f"the data set {self._uri} names {display(place)[:_MOST_SHOWN]!r}, which is not a file of its own; only "
            f"what lies in {self._name} is read, links followed: put the file there, and name it by a relative path"
        )


def _folders(folder: Path) -> tuple[Path, ...]:
    """Return where the files of a folder may lie.

    A snapshot in the hub's cache is a folder of links to the blobs beside it.
    """
    blobs = folder.parent.parent / "blobs"
    return (folder, blobs.resolve()) if folder.parent.name == "snapshots" and blobs.is_dir() else (folder,)
