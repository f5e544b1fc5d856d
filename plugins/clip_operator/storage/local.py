"""Files on this machine, as plain paths or ``file://`` URIs."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from clip_operator.storage.backend import (
    AccessDenied,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    Unchanged,
    changed_while_read,
)
from clip_operator.storage.disk import receiving, writing_to

# What os.link says where the file system has no hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


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

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        self.stat(uri)  # refuses what is not a plain file: opening a pipe would block
        try:
            with path_of(uri).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size + start) if start < 0 else start)
                return file.read(max(0, length))
        except OSError as error:
            raise _translated(uri, error) from None

    def download(self, info: ObjectInfo, path: Path) -> None:
        try:
            with receiving(path):
                shutil.copyfile(path_of(info.uri), path)
                if self.stat(info.uri) != info:
                    raise changed_while_read(info.uri)
        except OSError as error:
            raise _translated(info.uri, error) from None

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        try:
            with path.open("rb") as source:
                return self._publish(source, uri, only_if)
        except OSError as error:
            raise StorageError(f"cannot write {uri}: {error.strerror or error}") from None

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        try:
            return self._publish(BytesIO(data), uri, only_if)
        except OSError as error:
            raise StorageError(f"cannot write {uri}: {error.strerror or error}") from None

    def _publish(self, source: BinaryIO, uri: str, only_if: Unchanged | None) -> ObjectInfo:
        target = path_of(uri)
        temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}.partial"
        if only_if is not None:
            only_if.check(uri, self._find(uri))  # before the work
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # open() gives the mode that the umask allows, so that the next task's user can read the step
            with writing_to(target), temporary.open("xb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
            self._put_into_place(temporary, target, uri, only_if)
        finally:  # also when a signal stops the task here
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return self.stat(uri)

    def _put_into_place(self, temporary: Path, target: Path, uri: str, only_if: Unchanged | None) -> None:
        if only_if is None:
            temporary.replace(target)
            return
        if only_if.expected is None:
            try:
                os.link(temporary, target)  # unlike a rename, it fails where something stands
                return
            except FileExistsError:
                only_if.check(uri, self.stat(uri))
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
        with _locked(target):
            only_if.check(uri, self._find(uri))
            temporary.replace(target)

    def _find(self, uri: str) -> ObjectInfo | None:
        try:
            return self.stat(uri)
        except ObjectNotFound:
            return None

    def unfinished_uploads(self, uri: str) -> list[str]:
        target = path_of(uri)
        partial = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{16}\.partial")
        try:
            return sorted(found.name for found in target.parent.iterdir() if partial.fullmatch(found.name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _translated(uri, error) from None

    def discard_unfinished_uploads(self, uri: str) -> int:
        unfinished = self.unfinished_uploads(uri)
        for name in unfinished:
            try:
                (path_of(uri).parent / name).unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"cannot delete {name} beside {uri}: {error.strerror or error}") from None
        return len(unfinished)

    def delete(self, uri: str) -> None:
        try:
            path_of(uri).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete {uri}: {error.strerror or error}") from None

    def delete_folder(self, uri: str) -> None:
        try:
            shutil.rmtree(path_of(uri))
        except FileNotFoundError:
            return
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


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keep others of this package from replacing ``target`` meanwhile, where the file system has locks.

    The lock is on the file that is to be replaced: who waited for it finds another file in its place.
    """
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
