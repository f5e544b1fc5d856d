"""Finds a checkpoint by name: shipped with the package, a local folder, a prefix in object storage, or the hub."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from clip_operator.errors import JobError
from clip_operator.model.formats import FORMATS, Format, choose_format
from clip_operator.model.json_file import byte_limit
from clip_operator.storage.local import path_of
from clip_operator.storage.uri import display, name_of, scheme_of

if TYPE_CHECKING:
    from clip_operator.storage import ObjectInfo, Storage

log = logging.getLogger(__name__)

_BUILTIN = Path(__file__).parent / "builtin"

# What is read of a checkpoint beside its weights. Other frameworks' weights, and subfolders, stay where they are.
_CONFIGURATION = ("*.json", "*.txt", "*.model", "*.jinja")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files in a local folder.

    :param name: as the request names it.
    :param source: where it was found: ``builtin``, ``folder``, ``s3`` (or another storage scheme), ``hub``.
    :param path: the local folder.
    :param revision: the hub commit; None for every other source.
    :param digest: SHA-256 over the names and contents of the files that decide the scores.
    :param files: those files' names, with the size and the time of change in nanoseconds that each had before it was
        read for the digest.
    :param weights: the names of those among them that hold the weights.
    :param format: how it is saved, and so by which library it is loaded.
    """

    name: str
    source: str
    path: Path
    revision: str | None
    digest: str
    files: Mapping[str, tuple[int, int] | None]
    weights: tuple[str, ...]
    format: Format

    @property
    def safetensors(self) -> bool:
        """Whether the weights are in safetensors files."""
        return self.weights[0].endswith(".safetensors")

    def check_unchanged(self) -> None:
        """Raise :class:`JobError` if the files are no longer those that the digest was made of."""
        for name, version in self.files.items():
            if _version(self.path / name) != version:
                raise JobError(
                    f"model {display(self.name)!r}: {name} changed while the checkpoint was being read; run the task "
                    "again"
                )


def find_checkpoint(name: str, revision: str | None, storage: Storage) -> Checkpoint:
    """Return the checkpoint of that name, its files on local disk.

    Looks, in this order, among the models shipped with the package (``builtin://``), in object storage (``s3://``,
    ``gs://``, …), in the local file system, and at the Hugging Face hub (or its local cache).

    :raises JobError: there is none; the message says which places were tried.
    """
    scheme = scheme_of(name)
    if revision is not None and (scheme != "file" or path_of(name).is_dir()):
        raise JobError(
            f"model {display(name)!r} is not a hub id, so it has no revision {revision!r}; leave revision out"
        )
    if scheme == "builtin":
        shipped = sorted(folder.name for folder in _BUILTIN.iterdir() if folder.is_dir())
        if name.partition("://")[2] not in shipped:
            raise JobError(f"model {name!r} not found: the models in the package are {', '.join(shipped)}")
        return _open(name, "builtin", _BUILTIN / name_of(name))
    if scheme != "file":
        return _open(name, scheme, _fetch(name, storage))
    folder = path_of(name)
    if folder.is_dir():
        return _open(name, "folder", folder)
    tried = f"the local folder {folder.absolute()} (there is none)"
    if not _HUB_ID.fullmatch(name):
        raise JobError(f"model {name!r} not found; tried {tried}; it cannot be a hub id, which is like owner/model")
    path, commit = _fetch_from_hub(name, revision, tried)
    return _open(name, "hub", path, commit)


def _open(name: str, source: str, folder: Path, revision: str | None = None) -> Checkpoint:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    format, weights = choose_format(names)
    if format.configuration not in names or not weights:
        missing = format.missing if format.configuration in names else format.configuration
        raise JobError(
            f"model {display(name)!r}: {folder} holds no {missing}; it has {', '.join(names[:10]) or 'no files'}"
        )
    format.check_installed(display(name))
    decisive = [n for n in names if n in weights or any(fnmatchcase(n, p) for p in _CONFIGURATION)]
    for file in decisive:
        _check_file(display(name), folder, file, file in weights)
    files = {file: _version(folder / file) for file in decisive}
    checkpoint = Checkpoint(name, source, folder, revision, _digest(folder, decisive), files, tuple(weights), format)
    if not checkpoint.safetensors:
        log.warning(
            "Model %s has no safetensors weights; loading %s with weights only (no code in it is run). "
            "Prefer a checkpoint saved as safetensors.",
            display(name),
            ", ".join(weights),
        )
    return checkpoint


def _check_file(model: str, folder: Path, name: str, is_weights: bool) -> None:
    """Refuse a file that lies elsewhere, or that is so large that reading it would take the machine's memory."""
    file, home = (folder / name).resolve(), folder.resolve()
    # The hub's library keeps the files of all commits in one folder, and links to them.
    if not file.is_relative_to(home) and file.parent != home.parent.parent / "blobs":
        raise JobError(
            f"model {model!r}: {name} is a link that leads out of {folder}, and is not followed; put the file "
            "itself there"
        )
    if not is_weights and (size := file.stat().st_size) > byte_limit(name):
        raise JobError(_too_large(model, name, size))


def _too_large(model: str, name: str, size: int) -> str:
    return (
        f"model {model!r}: {name} has {size:,} bytes, and such a file has at most {byte_limit(name):,}; give a "
        "checkpoint as it was published"
    )


def _version(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _digest(folder: Path, names: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _cache() -> Path:
    root = os.environ.get("CLIP_OPERATOR_CACHE") or Path.home() / ".cache" / "clip-operator"
    return Path(root) / "models"


def _fetch(name: str, storage: Storage) -> Path:
    """Copy the checkpoint below a prefix to the local cache, once for each version of its files."""
    prefix = name.rstrip("/") + "/"
    found = {info.uri[len(prefix) :]: info for info in storage.list(prefix)}
    names = [n for n in found if "/" not in n]
    format, weights = choose_format(names)
    if weights:
        format.check_installed(display(name))
    wanted = [*weights, *(n for n in names if any(fnmatchcase(n, p) for p in _CONFIGURATION))]
    if not wanted:
        raise JobError(
            f"model {display(name)!r} not found: there is no checkpoint file directly below {display(prefix)}"
        )
    for n in wanted:
        if n not in weights and found[n].size > byte_limit(n):
            raise JobError(_too_large(display(name), n, found[n].size))
    objects = [found[n] for n in sorted(wanted)]
    if not all(o.etag for o in objects):
        raise JobError(
            f"the store of model {display(name)!r} tells no versions apart, so a copy could not be kept "
            "apart from that of another version; copy the checkpoint to a local folder or to another store"
        )
    version = hashlib.sha256("\n".join(f"{o.uri} {o.size} {o.etag}" for o in objects).encode()).hexdigest()
    target = _cache() / version
    if not target.is_dir():
        log.info("Copying model %s (%.0f MB) to %s", display(name), sum(o.size for o in objects) / 1e6, target)
        _publish(target, lambda folder: _copy(objects, folder, storage))
    return target


def _copy(objects: Iterable[ObjectInfo], folder: Path, storage: Storage) -> None:
    for info in objects:
        storage.download(info, folder / name_of(info.uri))


def _publish(target: Path, fill: Callable[[Path], None]) -> None:
    """Make ``target`` appear whole: filled under another name, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
    try:
        fill(folder)
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch_first_weights(name: str, fetch: Callable[[tuple[str, ...]], Path]) -> Path:
    """Fetch a checkpoint with the weights that are taken of it, and no others, and return its folder."""
    folder = fetch(())
    for format in FORMATS:
        if not (folder / format.configuration).is_file():
            continue
        format.check_installed(display(name))
        for patterns in format.weights:
            folder = fetch(patterns)
            if format.select_weights(path.name for path in folder.iterdir()):
                return folder
    return folder


def _fetch_from_hub(name: str, revision: str | None, tried: str) -> tuple[Path, str]:
    """Return the folder of the hub's snapshot and its commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def fetch(weights: tuple[str, ...]) -> Path:
        # The index of sharded weights is among *.json. Subfolders hold other runtimes' exports.
        patterns = [*_CONFIGURATION, *weights]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))

    try:
        folder = _fetch_first_weights(name, fetch)
    except GatedRepoError:
        why = "the model is gated: accept its terms at the hub and set HF_TOKEN"
    except RepositoryNotFoundError:
        why = "there is no such model, or it is private and HF_TOKEN is not set"
    except RevisionNotFoundError:
        why = f"the model has no revision {revision!r}"
    except LocalEntryNotFoundError:
        offline = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
        why = f"{offline}, and the model is not in the local cache"
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    else:
        return folder, folder.name  # a snapshot's folder is named by its commit
    raise JobError(
        f"model {name!r} not found; tried {tried}, and the Hugging Face hub ({why}). "
        "Without a hub, give a local folder or an s3:// prefix that holds the checkpoint's files"
    )
