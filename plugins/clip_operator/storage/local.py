"""Files on this machine, as plain paths or ``file://`` URIs."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from clip_operator.storage.backend import AccessDenied, ObjectInfo, ObjectNotFound, ObjectTooLarge, StorageError


def path_of(uri: str) -> Path:
    """Return the path that a plain path or a ``file://`` URI names."""
    if not _is_file_uri(uri):
        return Path(uri)
    host, slash, path = uri[len("file://") :].partition("/")
    if host not in ("", "localhost"):
        raise StorageError(f"{uri}: a file:// URI names no host; write file:///{host}{slash}{path} for a path")
    return Path(unquote(slash + path))


def _is_file_uri(uri: str) -> bool:
    return uri.lower().startswith("file://")


class LocalBackend:
    """Local files. Writes go to a temporary name in the same folder and are renamed into place."""

    def stat(self, uri: str) -> ObjectInfo:
        path = path_of(uri)
        try:
            status = path.stat()
        except OSError as error:
            raise _translated(uri, error) from None
        if not path.is_file():
            raise ObjectNotFound(f"{uri} is not a file")
        return ObjectInfo(uri=uri, size=status.st_size, etag=f"{status.st_mtime_ns:x}-{status.st_size:x}")

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        info = self.stat(uri)  # refuses what is not a plain file: opening a pipe would block
        if max_bytes is not None and info.size > max_bytes:
            raise ObjectTooLarge(f"{uri} has {info.size:,} bytes, more than the {max_bytes:,} accepted")
        try:
            with path_of(uri).open("rb") as file:
                # Counted while reading: a file may grow after it was looked at.
                data = file.read(-1 if max_bytes is None else max_bytes + 1)
        except OSError as error:
            raise _translated(uri, error) from None
        if max_bytes is not None and len(data) > max_bytes:
            raise ObjectTooLarge(f"{uri} grew beyond the {max_bytes:,} bytes accepted")
        return data

    def download(self, info: ObjectInfo, path: Path) -> None:
        try:
            shutil.copyfile(path_of(info.uri), path)
        except OSError as error:
            raise _translated(info.uri, error) from None
        if self.stat(info.uri) != info:
            raise StorageError(f"{info.uri} changed while it was being read; run the task again")

    def upload(self, path: Path, uri: str) -> ObjectInfo:
        target = path_of(uri)
        temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}.partial"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # open() gives the mode that the umask allows, so that the next task's user can read the step
            with temporary.open("xb") as out, path.open("rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
        except OSError as error:
            raise StorageError(f"cannot write {uri}: {error.strerror or error}") from None
        finally:  # also when a signal stops the task here
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return self.stat(uri)

    def delete(self, uri: str) -> None:
        try:
            path_of(uri).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete {uri}: {error.strerror or error}") from None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        head, slash, last = prefix.rpartition("/")
        folder, start = path_of(head + slash), last
        if _is_file_uri(prefix):
            start = unquote(last)
        if not folder.is_dir():
            return
        for found in sorted(folder.rglob("*")):
            relative = found.relative_to(folder).as_posix()
            if relative.startswith(start) and found.is_file():
                rest = relative[len(start) :]
                yield self.stat(prefix + (quote(rest) if _is_file_uri(prefix) else rest))


def _translated(uri: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ObjectNotFound(f"{uri} does not exist")
    if isinstance(error, IsADirectoryError):
        return ObjectNotFound(f"{uri} is a folder, not a file")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return ObjectNotFound(f"{uri} cannot exist: {error.strerror}")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{uri}: permission denied")
    return StorageError(f"{uri}: {error.strerror or error}")
