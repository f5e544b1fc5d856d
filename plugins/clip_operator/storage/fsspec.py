"""Other object stores (``hf://``, ``oci://``, …) through the fsspec driver that the user has installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from clip_operator.storage.disk import filling, receiving, writing_to
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
from clip_operator.storage.read_ahead import BUFFER_BYTES, ReadAhead
from clip_operator.storage.streaming import copy_all
from clip_operator.storage.uri import canonical, folded, scheme_of
from clip_operator.storage.writing import Draft, ObjectWriter

_CHUNK_BYTES = 1 << 20

_PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "adl": "adlfs",
    "oss": "ossfs",
    "hdfs": "pyarrow",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "oci": "ocifs",
    "hf": "huggingface_hub",
}

# What drivers call that which stands for an object's content, and, where they have no such thing, when it was written.
# (A local file's time of change is called its creation.)
_DIGESTS = ("etag", "ETag", "md5Hash", "blob_id", "xet_hash", "sha", "hex", "Content-MD5", "Digest")
_TIMES = (
    "mtime",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "modified",
    "modificationTime",
    "updated",
    "created",
)


# Drivers that take the place of what reaches these stores by itself, where the user has set them up.
_NAMES = {"gs": ("gs", "gcs"), **dict.fromkeys(("az", "abfs", "abfss"), ("az", "abfs", "abfss"))}


def is_configured(scheme: str) -> bool:
    """Whether the user has said something of the scheme's driver in fsspec's own settings, be it nothing: ``{}``.

    These are ``FSSPEC_…`` variables and the files in ``~/.config/fsspec``.
    """
    try:
        from fsspec.config import conf
    except ImportError:
        return False
    return any(name in conf for name in _NAMES.get(scheme, (scheme,)))


class FsspecBackend:
    """One fsspec file system; credentials are the driver's own (environment, workload identity).

    Its methods are those of :class:`clip_operator.storage.Storage`. fsspec has no conditional writes: what ``only_if``
    says is looked up before the upload begins, and another's write that comes during the upload is not noticed. Nor
    does it tell of unfinished uploads.

    :param scheme: the URI scheme, as in ``gs``.
    :raises StorageError: no driver for the scheme is installed; the message names the package that has it. Or it leads
        to the local disk by another driver.
    """

    def __init__(self, scheme: str) -> None:
        try:
            import fsspec

            self._fs: Any = fsspec.filesystem(scheme)
        except (ImportError, ValueError) as error:
            package = _PACKAGES.get(scheme)
            fix = f"pip install {package}" if package else "use s3://, a local path, or a scheme that fsspec knows"
            raise StorageError(f"cannot open {scheme}:// URIs: no driver is installed ({error}); {fix}") from None
        except Exception as error:
            raise StorageError(f"cannot open {scheme}:// URIs: {error}") from None
        self._on_disk = _is_on_disk(self._fs, scheme)

    def stat(self, uri: str) -> ObjectInfo:
        self._fs.invalidate_cache()  # drivers keep listings, also from one job to the next, and take versions from them
        return self._listed(uri)

    def _listed(self, uri: str) -> ObjectInfo:
        """Return what :meth:`stat` does, or what was true of it when its folder was last listed."""
        with _errors_explained(uri):
            return _info(uri, self._fs.info(uri))

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        return self.read_version(uri, max_bytes)[1]

    def read_version(self, uri: str, max_bytes: int | None = None) -> tuple[ObjectInfo, bytes]:
        info = self.stat(uri)
        if max_bytes is not None and info.size > max_bytes:
            raise ObjectTooLarge(f"{uri} has {info.size:,} bytes, more than the {max_bytes:,} accepted")
        with _errors_explained(uri):
            data = bytes(self._fs.cat_file(uri))
        self._check_read(info)
        return info, data

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        size = self.stat(uri).size
        first = max(0, size + start) if start < 0 else start
        if first >= size or length <= 0:
            return b""
        with _errors_explained(uri):
            return bytes(self._fs.cat_file(uri, start=first, end=min(first + length, size)))

    def download(self, info: ObjectInfo, path: Path) -> None:
        with _errors_explained(info.uri), receiving(path):
            with self._fs.open(info.uri, "rb") as source, path.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
            self._check_read(info)

    def open(self, info: ObjectInfo) -> BinaryIO:
        self._check_read(info)
        return BufferedReader(ReadAhead(info, lambda start, length: self._fetched(info, start, length)), BUFFER_BYTES)

    def download_range(self, info: ObjectInfo, start: int, length: int, path: Path, at: int) -> None:
        with self.open(info) as source, filling(path) as put:
            source.seek(start)
            done = 0
            while done < length:
                chunk = source.read(min(_CHUNK_BYTES, length - done))
                put(chunk, at + done)
                done += len(chunk)

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        self.check(uri, only_if)
        # Object stores publish a PUT or a finished multipart upload at once, so put_file is all or nothing there.
        with _errors_explained(uri):
            self._fs.put_file(str(path), uri)
        return self.stat(uri)

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        self.check(uri, only_if)
        with _errors_explained(uri):
            self._fs.pipe_file(uri, data)
        return self.stat(uri)

    def create(self, uri: str, only_if: Unchanged | None = None) -> ObjectWriter:
        return ObjectWriter(_FsspecDraft(self, uri, only_if))

    def concatenate(self, sources: Sequence[ObjectInfo], uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        with self.create(uri, only_if) as out:
            copy_all(sources, self.open, out)
        return out.info

    def unfinished_uploads(self, _uri: str) -> list[str]:
        return []

    def discard_unfinished_uploads(self, _uri: str) -> int:
        return 0

    def delete(self, uri: str) -> None:
        with _errors_explained(uri):
            if self._fs.exists(uri):
                self._fs.rm_file(uri)

    def delete_folder(self, uri: str) -> None:
        with _errors_explained(uri):
            self._fs.invalidate_cache()
            if self._fs.exists(uri.rstrip("/")):
                self._fs.rm(uri.rstrip("/"), recursive=True)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        for uri, _ in self._found(prefix, lambda folder: self._fs.find(folder, detail=True).values()):
            if start_after is None or uri > start_after:
                info = find(uri, self._listed)  # a listing itself may spell the version in another way
                if info is not None:  # it has not gone meanwhile
                    yield info

    def list_level(self, prefix: str) -> Iterator[str]:
        for uri, details in self._found(prefix, lambda folder: self._fs.ls(folder, detail=True)):
            yield f"{uri.rstrip('/')}/" if details.get("type") == "directory" else uri

    def _found(
        self, prefix: str, listing: Callable[[str], Iterable[dict[str, Any]]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the URIs that start with ``prefix``, in order, and the details that ``listing`` of the folder gives."""
        folder = prefix.rpartition("/")[0]
        root = self._fs._strip_protocol(folder).rstrip("/")  # drivers list paths in their own form, without the scheme
        with _errors_explained(prefix):
            self._fs.invalidate_cache()
            found = list(listing(folder)) if self._fs.exists(folder) else []
        for details in sorted(found, key=lambda details: str(details["name"])):
            uri = folder + self._fs._strip_protocol(details["name"]).removeprefix(root)
            if uri.startswith(prefix):
                yield uri, details

    def canonical(self, uri: str) -> str:
        path = self._fs._strip_protocol(canonical(uri))
        return os.path.realpath(path) if self._on_disk else folded(f"{scheme_of(uri)}://{path}")

    def check(self, uri: str, only_if: Unchanged | None) -> None:
        """Look whether ``only_if`` holds.

        :raises ObjectChanged: it does not.
        """
        if only_if is not None:
            only_if.check(uri, find(uri, self.stat))

    def _fetched(self, info: ObjectInfo, start: int, length: int) -> bytes:
        with _errors_explained(info.uri):
            data = bytes(self._fs.cat_file(info.uri, start=start, end=start + length))
        self._check_read(info)
        return data

    def _check_read(self, info: ObjectInfo) -> None:
        if self.stat(info.uri) != info:
            raise changed_while_read(info.uri)


class _FsspecDraft(Draft):
    """An object that waits on the local disk until it is whole: not every driver can take back what it was given."""

    def __init__(self, backend: FsspecBackend, uri: str, only_if: Unchanged | None) -> None:
        super().__init__()
        self._backend = backend
        self._uri = uri
        self._only_if = only_if
        self._folder: Path | None = None

    def begin(self) -> None:
        self._backend.check(self._uri, self._only_if)
        with writing_to(Path(tempfile.gettempdir()) / "object"):
            self._folder = Path(tempfile.mkdtemp(prefix="clip-operator-draft-"))
            self._file.touch()

    def append(self, data: memoryview) -> None:
        with writing_to(self._file), self._file.open("ab") as out:
            out.write(data)

    def publish(self) -> ObjectInfo:
        return self._backend.upload(self._file, self._uri, self._only_if)

    def discard(self) -> None:
        if self._folder is not None:
            with suppress(OSError):
                shutil.rmtree(self._folder)

    @property
    def _file(self) -> Path:
        assert self._folder is not None, "begun"
        return self._folder / "object"


def _is_on_disk(driver: Any, scheme: str) -> bool:
    """Tell whether a driver's files are this machine's, under their own paths.

    :raises StorageError: they are, under others, so that nobody could tell where their links lead.
    """
    from fsspec.implementations.local import LocalFileSystem

    under = driver
    while (inner := getattr(under, "fs", None) or getattr(under, "sync_fs", None)) is not None:
        under = inner
    if under is not driver and isinstance(under, LocalFileSystem):
        raise StorageError(
            f"cannot open {scheme}:// URIs: its driver leads to the local disk by another one; write the path itself"
        )
    return isinstance(driver, LocalFileSystem)


def _info(uri: str, details: dict[str, Any]) -> ObjectInfo:
    if details.get("type") == "directory":
        raise ObjectNotFound(f"{uri} is a folder, not an object")
    size = int(details.get("size") or 0)
    digest = next((details[key] for key in _DIGESTS if details.get(key)), None)
    told = [digest] if digest else [details[key] for key in _TIMES if details.get(key)]
    etag = "-".join(map(str, [*told, f"{size:x}"])) if told else ""
    return ObjectInfo(uri=uri, size=size, etag=etag, modified=_modified(details))


def _modified(details: dict[str, Any]) -> datetime | None:
    """Return when the object was written, which every driver tells in its own way, or not at all."""
    for key in _TIMES:
        value = details.get(key)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            with suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None


@contextmanager
def _errors_explained(uri: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError:
        raise ObjectNotFound(f"{uri} does not exist") from None
    except PermissionError as error:
        raise AccessDenied(f"{uri}: access denied ({error})") from None
    except Exception as error:  # drivers raise their own vendors' exceptions, which have no common base
        raise StorageError(f"{uri}: {type(error).__name__}: {error}") from None
