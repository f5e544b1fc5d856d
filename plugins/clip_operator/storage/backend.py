"""What every kind of storage offers, and the errors it raises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from clip_operator.errors import JobError
from clip_operator.storage.uri import canonical

if TYPE_CHECKING:
    from clip_operator.storage.writing import ObjectWriter


class StorageError(JobError):
    """The storage cannot do what was asked, and trying another object would not help."""


class CredentialsError(StorageError):
    """There are no credentials, or the storage does not accept them."""


class AccessDenied(StorageError):
    """The credentials are accepted but may not touch this object."""


class BucketNotFound(StorageError):
    """There is no such bucket, so nothing in it can be read or written."""


class ObjectNotFound(StorageError):
    """There is no object at this URI. (A bucket that does not exist is no such case: it is not one object's matter.)"""


class ObjectTooLarge(StorageError):
    """The object has more bytes than the caller accepts."""


class ObjectChanged(StorageError):
    """What stands at the place is not what the caller expected to find there. Nothing was written, or read in full."""


@dataclass(frozen=True)
class ObjectInfo:
    """One version of one object.

    :param uri: where it is.
    :param size: bytes.
    :param etag: changes whenever the content does: S3's ETag, or a local file's time and size.
    :param modified: when it was written, as the storage tells; None where that was not looked up.
    """

    uri: str
    size: int
    etag: str
    modified: datetime | None = field(default=None, compare=False)

    @classmethod
    def of_many(cls, uri: str, objects: Sequence[ObjectInfo]) -> Self:
        """Return the version of what several objects, in this order, make up.

        Its ``etag`` is a digest of their URIs, sizes and versions; it changes when one comes, goes or is replaced.

        :param uri: what they are called together, such as their folder or a pattern.
        """
        listed = json.dumps([[canonical(info.uri), info.size, info.etag] for info in objects])
        etag = hashlib.sha256(listed.encode(errors="surrogatepass")).hexdigest()
        return cls(uri, sum(info.size for info in objects), etag)


@dataclass(frozen=True)
class Unchanged:
    """A precondition of a write: only if this is still what stands there.

    :param expected: the version that must stand there; None: there must be nothing.
    """

    expected: ObjectInfo | None

    def check(self, uri: str, found: ObjectInfo | None) -> None:
        """Compare with what stands at ``uri`` now.

        :raises ObjectChanged: it is something else.
        """
        if found is None and self.expected is not None:
            raise ObjectChanged(f"{uri} is gone: it was deleted in the meantime, and nothing was written")
        if found is not None and self.expected is None:
            raise ObjectChanged(f"{uri} exists already: it was written in the meantime, and was left as it is")
        if found is not None and self.expected is not None and _version(found) != _version(self.expected):
            raise ObjectChanged(f"{uri} was replaced in the meantime, and was left as it is now")


def _version(info: ObjectInfo) -> tuple[int, str]:
    return info.size, info.etag


def changed_while_read(uri: str) -> ObjectChanged:
    """Return the error for an object that is not what it was when its reading began."""
    return ObjectChanged(f"{uri} changed while it was being read; run the task again")


def check_range(info: ObjectInfo, start: int, length: int) -> None:
    """Refuse a range that the object does not have.

    :raises ValueError: it begins before the object or ends after it.
    """
    if start < 0 or length < 0 or start + length > info.size:
        raise ValueError(f"{info.uri} has {info.size:,} bytes, not those from {start:,} to {start + length:,}")


class Backend(Protocol):
    """One kind of storage. Every method takes whole URIs and raises :class:`StorageError`."""

    def stat(self, uri: str) -> ObjectInfo:
        """Return the object's size and version, or raise :class:`ObjectNotFound`."""

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        """Return the whole object, or raise :class:`ObjectTooLarge` without reading past ``max_bytes``."""

    def read_version(self, uri: str, max_bytes: int | None = None) -> tuple[ObjectInfo, bytes]:
        """Return the whole object as :meth:`read` does, and which version it was."""

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on, fewer at the end; a negative ``start`` counts from the end."""

    def open(self, info: ObjectInfo) -> BinaryIO:
        """Return a seekable, buffered reader of exactly the version ``info``."""

    def download(self, info: ObjectInfo, path: Path) -> None:
        """Copy exactly the version ``info`` to a local file; raise :class:`ObjectChanged` if it has changed."""

    def download_range(self, info: ObjectInfo, start: int, length: int, path: Path, at: int) -> None:
        """Copy a range of exactly the version ``info`` into the local file ``path``, from its byte ``at`` on."""

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        """Put a local file at ``uri``. Readers see the old object or the whole new one, never a part.

        :param only_if: write only if this holds, else raise :class:`ObjectChanged`.
        """

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        """Put ``data`` at ``uri``, as :meth:`upload` does."""

    def create(self, uri: str, only_if: Unchanged | None = None) -> ObjectWriter:
        """Return what writes a new object at ``uri`` as its bytes come, as :meth:`upload` does."""

    def concatenate(self, sources: Sequence[ObjectInfo], uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        """Put the bytes of the sources, which this kind of storage has too, in their order at ``uri``."""

    def unfinished_uploads(self, uri: str, /) -> list[str]:
        """Return the ids of uploads to exactly this URI that were begun and not completed, also of those under way."""

    def discard_unfinished_uploads(self, uri: str, /) -> int:
        """Remove what such uploads left, and return of how many. One under way may go on, or fail."""

    def delete(self, uri: str) -> None:
        """Remove the object; it is not an error if there is none."""

    def delete_folder(self, uri: str) -> None:
        """Remove every object whose URI starts with ``uri``, which ends with a slash; it may be that there is none."""

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose URI starts with ``prefix``, below any number of folders.

        :param start_after: a whole URI, of an object or not; only those that sort behind it are wanted.
        """

    def canonical(self, uri: str) -> str:
        """Return one spelling for all URIs that may lead to the same object, to compare and not to read or write."""
