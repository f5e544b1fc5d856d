"""Files on this machine, as plain paths or ``file://`` URIs."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from clip_operator.storage.disk import filling, receiving, writing_to
from clip_operator.storage.local_version import etag_of
from clip_operator.storage.objects import (
    AccessDenied,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    Unchanged,
    changed_while_read,
    find,
)
from clip_operator.storage.reading import VersionReader
from clip_operator.storage.uri import what_is_wrong_with
from clip_operator.storage.writing import Draft, ObjectWriter

_CHUNK_BYTES = 1 << 20

# What os.copy_file_range says where the file system, or a pair of them, has no such thing.
_NO_COPIES = frozenset({errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})

# What fcntl.flock says where the file system has no locks.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})

# What os.link says where the file system has no hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


def path_of(uri: str) -> Path:
    """Return the path that a plain path or a ``file://`` URI names."""
    if not _is_file_uri(uri):
        return Path(uri)
    if problem := what_is_wrong_with(uri):
        raise StorageError(f"{uri}: {problem}")
    _, slash, path = uri[len("file://") :].partition("/")
    return Path(unquote(slash + path))


def _is_file_uri(uri: str) -> bool:
    return uri.lower().startswith("file://")


class LocalBackend:
    """Local files. Writes go to a temporary name in the same folder and are renamed into place.

    Its methods are those of :class:`clip_operator.storage.Storage`.
    """

    def stat(self, uri: str) -> ObjectInfo:
        path = path_of(uri)
        with _errors_explained(uri):
            status = path.stat()
        if not path.is_file():
            raise ObjectNotFound(f"{uri} is not a file")
        return _info(uri, status)

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        return self.read_version(uri, max_bytes)[1]

    def read_version(self, uri: str, max_bytes: int | None = None) -> tuple[ObjectInfo, bytes]:
        info = self.stat(uri)  # refuses what is not a plain file: opening a pipe would block
        if max_bytes is not None and info.size > max_bytes:
            raise ObjectTooLarge(f"{uri} has {info.size:,} bytes, more than the {max_bytes:,} accepted")
        with _errors_explained(uri), path_of(uri).open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(status.st_size + 1)  # not max_bytes: what is asked for is reserved
            # Counted while reading: a file may grow after it was looked at.
            if len(data) != status.st_size:
                data += file.read(-1 if max_bytes is None else max(0, max_bytes + 1 - len(data)))
            changed = _was_written_to(file.fileno(), status)
        if max_bytes is not None and len(data) > max_bytes:
            raise ObjectTooLarge(f"{uri} grew beyond the {max_bytes:,} bytes accepted")
        if changed:
            raise changed_while_read(uri)
        return _info(uri, status), data

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        self.stat(uri)  # refuses what is not a plain file: opening a pipe would block
        with _errors_explained(uri), path_of(uri).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size + start) if start < 0 else start)
            return file.read(max(0, length))

    def open(self, info: ObjectInfo) -> BinaryIO:
        return BufferedReader(_LocalVersion(info), _CHUNK_BYTES)

    def download_range(self, info: ObjectInfo, start: int, length: int, path: Path, at: int) -> None:
        buffer = memoryview(bytearray(min(_CHUNK_BYTES, length)))
        with _LocalVersion(info) as source, filling(path) as put:
            done = 0
            while done < length:
                count = source.fill(buffer[: length - done], start + done)
                put(buffer[:count], at + done)
                done += count

    def download(self, info: ObjectInfo, path: Path) -> None:
        with _errors_explained(info.uri), receiving(path):
            path.unlink(missing_ok=True)
            self.download_range(info, 0, info.size, path, 0)
            if self.stat(info.uri) != info:
                raise changed_while_read(info.uri)

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        try:
            with path.open("rb") as source:
                return self._write(source, uri, only_if)
        except OSError as error:
            raise StorageError(f"cannot write {uri}: {error.strerror or error}") from None

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        return self._write(BytesIO(data), uri, only_if)

    def _write(self, source: BinaryIO, uri: str, only_if: Unchanged | None) -> ObjectInfo:
        with self.create(uri, only_if) as out:
            shutil.copyfileobj(source, out, _CHUNK_BYTES)
        return out.info

    def create(self, uri: str, only_if: Unchanged | None = None) -> ObjectWriter:
        return ObjectWriter(_LocalDraft(self, uri, only_if))

    def concatenate(self, sources: Sequence[ObjectInfo], uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        draft = _LocalDraft(self, uri, only_if)
        with ObjectWriter(draft) as out:
            for info in sources:
                with _LocalVersion(info) as source:
                    draft.append_file(source)
        return out.info

    def publish(self, temporary: Path, uri: str, only_if: Unchanged | None) -> ObjectInfo:
        """Give a finished file its place, if ``only_if`` holds; return its version."""
        self._put_into_place(temporary, path_of(uri), uri, only_if)
        return self.stat(uri)

    def _put_into_place(self, temporary: Path, target: Path, uri: str, only_if: Unchanged | None) -> None:
        if only_if is None:
            temporary.replace(target)
            return
        if only_if.expected is None:
            try:
                os.link(temporary, target)  # unlike a rename, it fails where something stands
            except FileExistsError:
                only_if.check(uri, self.stat(uri))
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            else:
                temporary.unlink()  # before its version is looked at, which changes with the number of its names
                return
        with _locked(target):
            only_if.check(uri, find(uri, self.stat))
            temporary.replace(target)

    def unfinished_uploads(self, uri: str) -> list[str]:
        target = path_of(uri)
        partial = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{16}\.partial")
        with _errors_explained(uri), suppress(FileNotFoundError, NotADirectoryError):
            return sorted(found.name for found in target.parent.iterdir() if partial.fullmatch(found.name))
        return []

    def discard_unfinished_uploads(self, uri: str) -> int:
        discarded = 0
        for name in self.unfinished_uploads(uri):
            path = path_of(uri).parent / name
            try:
                discarded += _discard(path)
            except OSError as error:
                raise StorageError(f"cannot delete {name} beside {uri}: {error.strerror or error}") from None
        return discarded

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

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        for uri in _names(prefix, _names_below):
            if start_after is None or uri > start_after:
                info = find(uri, self.stat)
                if info is not None:  # it is a file, and has not gone meanwhile
                    yield info

    def list_level(self, prefix: str) -> Iterator[str]:
        return _names(prefix, _names_in)

    def canonical(self, uri: str) -> str:
        return os.path.realpath(path_of(uri))


class _LocalVersion(VersionReader):
    """The file that had this version when it was opened. One that replaces it does no harm: this one stays open."""

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__(info)
        self._descriptor = -1
        with _errors_explained(info.uri):
            self._descriptor = os.open(path_of(info.uri), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._status = os.fstat(self._descriptor)
        if _info(info.uri, self._status) != info:
            raise changed_while_read(info.uri)

    def fill(self, view: memoryview, start: int) -> int:
        with _errors_explained(self.info.uri):
            count = os.preadv(self._descriptor, [view], start)
        self.check()  # it may have been written to meanwhile
        return count

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if not self.closed and self._descriptor >= 0:
            os.close(self._descriptor)
        super().close()

    def check(self) -> None:
        """Make sure that it is still as it was when it was opened.

        :raises ObjectChanged: it was written to.
        """
        if _was_written_to(self._descriptor, self._status):
            raise changed_while_read(self.info.uri)


class _LocalDraft(Draft):
    """A file under a temporary name in the folder of the object."""

    def __init__(self, backend: LocalBackend, uri: str, only_if: Unchanged | None) -> None:
        super().__init__()
        self._backend = backend
        self._uri = uri
        self._only_if = only_if
        self._target = path_of(uri)
        self._temporary = self._target.parent / f".{self._target.name}.{secrets.token_hex(8)}.partial"
        self._out: BinaryIO | None = None

    def begin(self) -> None:
        if self._only_if is not None:
            self._only_if.check(self._uri, find(self._uri, self._backend.stat))  # before the work
        with writing_to(self._target, self._uri):
            self._target.parent.mkdir(parents=True, exist_ok=True)
            while self._out is None or os.fstat(self._descriptor).st_nlink == 0:  # discarded before it was locked
                if self._out is not None:
                    self._out.close()
                # open() gives the mode that the umask allows, so that the next task's user can read the step
                self._out = self._temporary.open("xb", buffering=0)
                with suppress(OSError):
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # tells that its writer lives

    def append(self, data: memoryview) -> None:
        with writing_to(self._target, self._uri):
            done = 0
            while done < data.nbytes:
                done += os.write(self._descriptor, data[done:])

    def append_file(self, source: _LocalVersion) -> None:
        """Take all the bytes of another local file, copied by the file system itself where it can."""
        done, size = 0, source.info.size
        with writing_to(self._target, self._uri):
            try:
                while count := os.copy_file_range(source.fileno(), self._descriptor, size - done, done):
                    done += count
            except OSError as error:
                if error.errno not in _NO_COPIES:
                    raise
        buffer = memoryview(bytearray(min(_CHUNK_BYTES, size - done)))
        while done < size:
            count = source.fill(buffer[: size - done], done)
            self.append(buffer[:count])
            done += count
        source.check()

    def publish(self) -> ObjectInfo:
        with writing_to(self._target, self._uri):
            os.fsync(self._descriptor)
            return self._backend.publish(self._temporary, self._uri, self._only_if)

    def discard(self) -> None:  # also when a signal stops the task
        if self._out is not None:
            self._out.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    @property
    def _descriptor(self) -> int:
        assert self._out is not None, "begun"
        return self._out.fileno()


def _was_written_to(descriptor: int, before: os.stat_result) -> bool:
    """Tell whether an open file was written to. That another takes its place, and it loses its name, does no harm."""
    now = os.fstat(descriptor)
    return (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size)


def _info(uri: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        uri=uri,
        size=status.st_size,
        etag=etag_of(status),
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _names(prefix: str, among: Callable[[Path, str], Iterable[str]]) -> Iterator[str]:
    """Yield the URIs that start with ``prefix`` of those names that ``among`` gives for a folder and a start."""
    head, slash, last = prefix.rpartition("/")
    start, spelled = (unquote(last), quote) if _is_file_uri(prefix) else (last, str)
    for name in among(path_of(head + slash), start):
        yield prefix + spelled(name[len(start) :])


def _names_in(folder: Path, start: str) -> list[str]:
    """Return which files and folders in a folder are called so, sorted, with a slash behind the name of a folder.

    Links to folders are passed over. Nothing where there is no folder, or none any more, or one that may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.startswith(start)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    folders = [f"{entry.name}/" for entry in found if entry.is_dir(follow_symlinks=False)]
    return sorted(folders + [entry.name for entry in found if Path(entry).is_file()])


def _names_below(folder: Path, start: str) -> Iterator[str]:
    """Yield what is called so below a folder, at any depth and in plain string order, but for folders themselves."""
    for name in _names_in(folder, start):
        if name.endswith("/"):
            yield from (name + inner for inner in _names_below(folder / name, ""))
        else:
            yield name


def _discard(temporary: Path) -> bool:
    """Remove an unfinished file, unless its writer lives; tell whether it is gone.

    Where the file system has no locks, nothing tells of a writer, and the file goes.
    """
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # it has been published, or its writer gave it up
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        temporary.unlink(missing_ok=True)  # while it is locked, so that a writer which has only begun learns of it
    finally:
        os.close(descriptor)
    return True


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


@contextmanager
def _errors_explained(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _explained(uri, error) from None


def _explained(uri: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ObjectNotFound(f"{uri} does not exist")
    if isinstance(error, IsADirectoryError):
        return ObjectNotFound(f"{uri} is a folder, not a file")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return ObjectNotFound(f"{uri} cannot exist: {error.strerror}")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{uri}: permission denied")
    return StorageError(f"{uri}: {error.strerror or error}")
