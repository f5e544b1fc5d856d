"""One door to every kind of storage, chosen by the URI's scheme."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clip_operator.machine.stopping import check_not_stopped
from clip_operator.storage.cloud.access import CloudAccess
from clip_operator.storage.local import LocalBackend, path_of
from clip_operator.storage.objects import ObjectInfo, Unchanged, check_range, find
from clip_operator.storage.s3.access import S3Access
from clip_operator.storage.streaming import copy_all
from clip_operator.storage.uri import scheme_of
from clip_operator.storage.writing import ObjectWriter

if TYPE_CHECKING:
    from clip_operator.storage.cloud.backend import CloudBackend
    from clip_operator.storage.fsspec import FsspecBackend
    from clip_operator.storage.s3.backend import S3Backend

    Backend = LocalBackend | S3Backend | CloudBackend | FsspecBackend

_CLOUD = frozenset({"gs", "az", "abfs", "abfss"})


class Storage:
    """Reads and writes objects by URI. One instance serves many threads and keeps its connections.

    :param s3_access: how S3 is reached, or what returns that when S3 is reached first.
    :param cloud_access: how Google's store and Azure are.
    """

    def __init__(
        self, s3_access: S3Access | Callable[[], S3Access] | None = None, cloud_access: CloudAccess | None = None
    ) -> None:
        self._s3_access = s3_access or S3Access()
        self.cloud_access = cloud_access or CloudAccess()
        """How Google's store and Azure are reached."""
        self._cloud: CloudBackend | None = None
        self._backends: dict[str, Backend] = {}
        self._lock = threading.Lock()

    @property
    def s3_access(self) -> S3Access:
        """How S3 is reached."""
        return self._s3_access if isinstance(self._s3_access, S3Access) else self._s3_access()

    def connect(self, uri: str) -> None:
        """Set up what reaches this URI, so that the first request does not have to.

        :raises StorageError: it cannot be.
        """
        self._backend(uri)

    def stat(self, uri: str) -> ObjectInfo:
        """Return the object's size and version, or raise :class:`ObjectNotFound`."""
        return self._backend(uri).stat(uri)

    def find(self, uri: str) -> ObjectInfo | None:
        """Return the object's size and version, or None if there is no such object."""
        return find(uri, self.stat)

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        """Return the whole object, or raise :class:`ObjectTooLarge` without reading past ``max_bytes``."""
        return self._backend(uri).read(uri, max_bytes)

    def read_version(self, uri: str, max_bytes: int | None = None) -> tuple[ObjectInfo, bytes]:
        """Return which version of the object stands there, and all its bytes; from S3 in one request.

        :raises ObjectTooLarge: it has more than ``max_bytes``.
        """
        return self._backend(uri).read_version(uri, max_bytes)

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes of the object from ``start`` on, fewer where it ends before.

        :param start: the first byte; a negative one counts from the end, as in a slice.
        :raises ObjectNotFound: there is no such object.
        """
        return self._backend(uri).read_range(uri, start, length)

    def open(self, info: ObjectInfo) -> BinaryIO:
        """Return a seekable, buffered reader of exactly the version ``info``; close it after use.

        From a remote store it asks for ranges: small ones where it is read here and there, large ones ahead of the
        reader, a few at a time, where it is read on and on. It holds no more than some 20 MiB.

        Its reads raise :class:`ObjectChanged` once another version stands there, and :class:`StorageError` for any
        other reason.
        """
        return self._backend(info.uri).open(info)

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        """Put ``data`` at ``uri``, all or nothing, as :meth:`upload` does."""
        return self._backend(uri).write(data, uri, only_if)

    def download(self, info: ObjectInfo, path: Path) -> None:
        """Copy exactly the version ``info`` to a local file.

        :raises ObjectChanged: another version stands there now, or came while it was read.
        :raises StorageError: for any other reason, a full disk among them; the message says which.
        """
        self._backend(info.uri).download(info, path)

    def download_range(self, info: ObjectInfo, start: int, length: int, path: Path, at: int = 0) -> None:
        """Copy the bytes from ``start`` to ``start + length`` of exactly the version ``info`` into a local file.

        Several threads may fill one file at the same time. If it fails, the file stays as far as it was filled.

        :param path: the file; it is made if there is none, and what it has outside the range stays.
        :param at: where the range begins in the file.
        :raises ObjectChanged: another version stands there now, or came while it was read.
        :raises ValueError: the object has no such range.
        """
        check_range(info, start, length)
        self._backend(info.uri).download_range(info, start, length, path, at)

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        """Put a local file at ``uri``. Readers see the old object or the whole new one, never a part.

        :param only_if: write only if this still holds when the object is published. In S3, Google's store and Azure and
            for local files that is one step with the publishing, where the store can do it; else it is looked up right
            before, or, through fsspec, before the upload begins.
        :raises ObjectChanged: ``only_if`` does not hold. What stands there was left as it is.
        """
        return self._backend(uri).upload(path, uri, only_if)

    def create(self, uri: str, only_if: Unchanged | None = None) -> ObjectWriter:
        """Return a context manager whose value is a binary file: what is written to it becomes the object at ``uri``.

        .. code-block:: python

            with storage.create("s3://bucket/key") as out:
                out.write(b"...")
            out.info  # the version that stands there now

        The object appears when the context is left in peace, whole; if it is left by an exception, nothing is written.
        No more than some parts of the object are held meanwhile, the larger of them on the local disk.

        :param only_if: see :meth:`upload`.
        :raises ObjectChanged: ``only_if`` does not hold, when the context is entered or when it is left.
        """
        return self._backend(uri).create(uri, only_if)

    def concatenate(self, sources: Sequence[ObjectInfo], uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        """Put all the bytes of ``sources``, in their order, at ``uri``, all or nothing; none make an empty object.

        Within one S3 bucket the server copies what it can by itself; the rest is read and sent.

        :param sources: versions of objects, which must still stand there.
        :param only_if: see :meth:`upload`.
        :raises ObjectChanged: a source is another version now, or ``only_if`` does not hold. Nothing was written.
        """
        backend = self._backend(uri)
        if all(self._backend(source.uri) is backend for source in sources):
            return backend.concatenate(sources, uri, only_if)
        with backend.create(uri, only_if) as out:
            copy_all(sources, self.open, out)
        return out.info

    def unfinished_uploads(self, uri: str) -> list[str]:
        """Return the ids of uploads to exactly this URI that were begun and not completed, also of those under way."""
        return self._backend(uri).unfinished_uploads(uri)

    def discard_unfinished_uploads(self, uri: str) -> int:
        """Remove what unfinished uploads to exactly this URI left, and return of how many.

        One that is under way goes on if it is to a local file, and fails in S3, which cannot tell them apart.
        """
        return self._backend(uri).discard_unfinished_uploads(uri)

    def delete(self, uri: str) -> None:
        """Remove the object; it is not an error if there is none."""
        self._backend(uri).delete(uri)

    def delete_folder(self, uri: str) -> None:
        """Remove every object whose URI starts with ``uri``, which ends with a slash; it may be that there is none."""
        if not uri.endswith("/"):
            raise ValueError(f"a folder's URI ends with a slash: {uri}")
        self._backend(uri).delete_folder(uri)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose URI starts with ``prefix``, below any number of folders.

        S3 is asked for a thousand at a time, as they are taken. One that comes or goes meanwhile is in it or not.

        :param start_after: a whole URI, of an object or not; only those that sort behind it are wanted.
        """
        for info in self._backend(prefix).list(prefix, start_after):
            check_not_stopped()
            yield info

    def list_level(self, prefix: str) -> Iterator[str]:
        """Yield the URIs that start with ``prefix`` and go on without a slash: of objects and, with one at the end, of
        folders, whatever is in them.
        """
        return self._backend(prefix).list_level(prefix)

    def has_folder(self, uri: str) -> bool:
        """Tell whether there is a folder at ``uri``, which ends with a slash; in a store, whether it has any object."""
        if scheme_of(uri) == "file":
            return path_of(uri).is_dir()
        return next(self.list(uri), None) is not None

    def canonical(self, uri: str) -> str:
        """Return one spelling for all URIs that may lead to the same object, to compare and not to read or write.

        Symbolic links are followed. Where a store might take several slashes for one, there is one.
        """
        return self._backend(uri).canonical(uri)

    def _backend(self, uri: str) -> Backend:
        scheme = scheme_of(uri)
        with self._lock:
            if scheme not in self._backends:
                self._backends[scheme] = self._reach(scheme)
            return self._backends[scheme]

    def _reach(self, scheme: str) -> Backend:
        # Imported here: a job over local files needs neither boto3 nor obstore nor fsspec.
        if scheme == "file":
            return LocalBackend()
        if scheme == "s3":
            from clip_operator.storage.s3.backend import S3Backend

            return S3Backend(self.s3_access)
        from clip_operator.storage.fsspec import FsspecBackend, is_configured

        if scheme not in _CLOUD or is_configured(scheme):
            return FsspecBackend(scheme)
        from clip_operator.storage.cloud.backend import CloudBackend

        if self._cloud is None:  # one for all: Azure has three schemes for the same objects
            self._cloud = CloudBackend(self.cloud_access)
        return self._cloud
