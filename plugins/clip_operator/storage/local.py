"""Files on this machine, as plain paths or ``file://`` URIs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clip_operator.storage.backend import AccessDenied, ObjectInfo, ObjectNotFound, ObjectTooLarge, StorageError


def path_of(uri: str) -> Path:
    """Return the path that a plain path or a ``file://`` URI names."""
    if not uri.lower().startswith("file://"):
        return Path(uri)
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise StorageError(f"{uri}: a file:// URI names no host; write file:///{parts.netloc}{parts.path} for a path")
    return Path(unquote(parts.path))


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
            return path_of(uri).read_bytes()
        except OSError as error:
            raise _translated(uri, error) from None

    def download(self, info: ObjectInfo, path: Path) -> None:
        try:
            shutil.copyfile(path_of(info.uri), path)
        except OSError as error:
            raise _translated(info.uri, error) from None
        if self.stat(info.uri) != info:
            raise StorageError(f"{info.uri} changed while it was being read; run the task again")

    def upload(self, path: Path, uri: str) -> ObjectInfo:
        target = path_of(uri)
        temporary: Path | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
            temporary = Path(name)
            with os.fdopen(descriptor, "wb") as out, path.open("rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would hide the step from the next task's user
            temporary.replace(target)
        except OSError as error:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise StorageError(f"cannot write {uri}: {error.strerror or error}") from None
        return self.stat(uri)

    def delete(self, uri: str) -> None:
        try:
            path_of(uri).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete {uri}: {error.strerror or error}") from None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        path = path_of(prefix)
        folder, start = (path, "") if prefix.endswith("/") else (path.parent, path.name)
        uri_folder = prefix[: len(prefix) - len(start)]
        if not folder.is_dir():
            return
        for found in sorted(folder.rglob("*")):
            relative = found.relative_to(folder).as_posix()
            if relative.startswith(start) and found.is_file():
                yield self.stat(uri_folder + relative)


def _translated(uri: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ObjectNotFound(f"{uri} does not exist")
    if isinstance(error, IsADirectoryError):
        return ObjectNotFound(f"{uri} is a folder, not a file")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{uri}: permission denied")
    return StorageError(f"{uri}: {error.strerror or error}")
