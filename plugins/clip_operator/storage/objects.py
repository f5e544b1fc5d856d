"""Versions of objects, and what can be wrong with an object, whatever kind of storage it is in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from clip_operator.errors import JobError
from clip_operator.storage.uri import canonical


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


class KeyNotSupported(ObjectNotFound):
    """No object can be reached under this key, because what reaches the store has no word for it."""


class ObjectTooLarge(StorageError):
    """The object has more bytes than the caller accepts."""


class ObjectChanged(StorageError):
    """What stands at the place is not what the caller expected to find there. Nothing was written, or read in full."""


@dataclass(frozen=True)
class ObjectInfo:
    """One version of one object.

    :param uri: where it is.
    :param size: bytes.
    :param etag: changes whenever the content does, such as S3's ETag; empty where the store tells nothing that would.
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
        Where one has no version, they have none together.

        :param uri: what they are called together, such as their folder or a pattern.
        """
        size = sum(info.size for info in objects)
        if not all(info.etag for info in objects):
            return cls(uri, size, "")
        listed = json.dumps([[canonical(info.uri), info.size, info.etag] for info in objects])
        etag = hashlib.sha256(listed.encode(errors="surrogatepass")).hexdigest()
        return cls(uri, size, etag)


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


def find(uri: str, stat: Callable[[str], ObjectInfo]) -> ObjectInfo | None:
    """Return what ``stat`` says of an object, or None where it raises :class:`ObjectNotFound`."""
    try:
        return stat(uri)
    except ObjectNotFound:
        return None


def changed_while_read(uri: str) -> ObjectChanged:
    """Return the error for an object that is not what it was when its reading began."""
    return ObjectChanged(f"{uri} changed while it was being read; run the task again")


def too_large(uri: str, size: int, max_bytes: int) -> ObjectTooLarge:
    """Return the error for an object of more bytes than the caller accepts."""
    return ObjectTooLarge(f"{uri} has {size:,} bytes, more than the {max_bytes:,} accepted")


def check_range(info: ObjectInfo, start: int, length: int) -> None:
    """Refuse a range that the object does not have.

    :raises ValueError: it begins before the object or ends after it.
    """
    if start < 0 or length < 0 or start + length > info.size:
        raise ValueError(f"{info.uri} has {info.size:,} bytes, not those from {start:,} to {start + length:,}")
