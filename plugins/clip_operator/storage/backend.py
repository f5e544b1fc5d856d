"""What every kind of storage offers, and the errors it raises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clip_operator.errors import JobError


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


@dataclass(frozen=True)
class ObjectInfo:
    """One version of one object.

    :param uri: where it is.
    :param size: bytes.
    :param etag: changes whenever the content does: S3's ETag, or a local file's time and size.
    """

    uri: str
    size: int
    etag: str


class Backend(Protocol):
    """One kind of storage. Every method takes whole URIs and raises :class:`StorageError`."""

    def stat(self, uri: str) -> ObjectInfo:
        """Return the object's size and version, or raise :class:`ObjectNotFound`."""

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        """Return the whole object, or raise :class:`ObjectTooLarge` without reading past ``max_bytes``."""

    def download(self, info: ObjectInfo, path: Path) -> None:
        """Copy exactly the version ``info`` to a local file; raise :class:`StorageError` if it has changed."""

    def upload(self, path: Path, uri: str) -> ObjectInfo:
        """Put a local file at ``uri``. Readers see the old object or the whole new one, never a part."""

    def delete(self, uri: str) -> None:
        """Remove the object; it is not an error if there is none."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose URI starts with ``prefix``, below any number of folders."""
