"""Finds, fetches and decodes the image that a row refers to, within what the policy allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, TypeVar

from clip_operator.errors import Reason, RowError
from clip_operator.images.buckets import BUCKET_STORES
from clip_operator.images.closed_buckets import ClosedBuckets
from clip_operator.images.decoding import load_rgb, open_image
from clip_operator.images.inline import locate_base64, locate_bytes, locate_data_uri
from clip_operator.images.local_root import LocalRoot, file_uri_path
from clip_operator.images.location import ImageLocation, shown
from clip_operator.images.object_store import Objects
from clip_operator.images.policy import ImagePolicy
from clip_operator.storage import (
    AccessDenied,
    KeyNotSupported,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    Storage,
    scheme_of,
)

if TYPE_CHECKING:
    from PIL import Image

    from clip_operator.images.web import WebImages

ReadT = TypeVar("ReadT")

# A colon may stand in a file's name ("12:30.jpg", "scene:1/a.jpg"), so without "//" only what is surely meant as a
# URI is taken for one.
_OPAQUE = re.compile(r"(about|blob|cid|file|ftp|https?|javascript|mailto|s3|urn|vbscript):", re.IGNORECASE)


class ImageLoader:
    """Reads and decodes images that an untrusted data set refers to. One instance serves many threads.

    A reference is a path relative to the policy's root; an absolute path or ``file://`` URI below a local root; the
    URI of an object in a bucket that the policy opens, as in ``s3://bucket/key``; an http(s) URL of an allowed host; a
    ``data:`` URI; an image file in base64, or its bytes; or Hugging Face's ``{"bytes": …, "path": …}``, where bytes
    win.

    :param storage: reads files and objects.
    :param policy: what may be read.
    :param room: called with the number of an image's pixels before they are decoded; they are in memory inside.
    """

    def __init__(
        self, storage: Storage, policy: ImagePolicy, room: Callable[[int], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._storage = storage
        self.policy = self._policy = policy
        self._room = room
        is_local = scheme_of(policy.root) == "file"
        self._root = LocalRoot(policy.root) if is_local else None
        self._objects = Objects(None if is_local else policy.root, policy.buckets, policy.prefixes)
        self._closed_buckets = ClosedBuckets(storage)
        self._web: WebImages | None = None
        if policy.image_hosts:
            from clip_operator.images.web import WebImages  # a job without web images needs no urllib3

            self._web = WebImages(policy)

    @contextmanager
    def decode(
        self, data: bytes, at_least: int | None = None, *, upright: bool = False, to_one_size: bool = False
    ) -> Iterator[Image.Image]:
        """Yield the pixels of an image file, in mode RGB.

        They have their room only inside the block: resize there, and keep the small image.

        :param at_least: the length in pixels that the short side will be resized to; a JPEG may then come at 1/2, 1/4
            or 1/8 of its size, with a short side of at least twice that. None, the default, for exact pixels.
        :param upright: turn it as its EXIF says.
        :param to_one_size: it will be made the size of all others, whatever its shape, so that it may be a long strip.
        :raises RowError: the bytes are not a whole image within the policy's limits.
        """
        image, pixels = open_image(data, self._policy.max_pixels, at_least, to_one_size=to_one_size)
        with self._room(pixels):
            image = load_rgb(image, upright)  # under the same name, so that pixels of another mode are freed
            yield image

    def locate(self, reference: object) -> ImageLocation:
        """Return where the image is, without looking there.

        :raises RowError: ``IMAGE_MISSING``: nothing is named; ``IMAGE_UNREADABLE``: something is there that cannot
            name an image, such as a number (kept apart from a missing one, because it hints at a wrong column);
            ``IMAGE_FORBIDDEN``, ``IMAGE_NOT_FOUND``, ``IMAGE_TOO_LARGE``: as far as the reference alone tells.
        """
        if isinstance(reference, Mapping):
            reference = _from_struct(reference)
        if _is_missing(reference):
            raise RowError(Reason.IMAGE_MISSING, "the row names no image")
        if isinstance(reference, str):
            return self._locate_text(self._policy.mending.mended(reference))
        if isinstance(reference, bytes | bytearray | memoryview):
            return locate_bytes(reference, self._policy.max_bytes)
        raise RowError(
            Reason.IMAGE_UNREADABLE, f"a value of type {type(reference).__name__} neither names nor holds an image"
        )

    def fetch(self, location: ImageLocation) -> bytes:
        """Return the bytes of the image file.

        :raises RowError: the image cannot be had: not found, forbidden, too large, unavailable.
        :raises StorageError: the storage fails in a way that other rows would meet, too; as
            :class:`CredentialsError` for missing or refused credentials, as :class:`AccessDenied` for a bucket that is
            closed to the job.
        """
        if location.data is not None:
            return location.data
        if scheme_of(location.key) in ("http", "https"):
            return self._allowed_web(location.key).fetch(location)
        return self._read(location, self._storage.read)[1]

    def fetch_version(self, location: ImageLocation) -> tuple[ObjectInfo, bytes]:
        """Return the bytes of an image that :meth:`readable_uri` names, and the very version they are.

        :raises RowError: as :meth:`fetch` does.
        :raises StorageError: as :meth:`fetch` does.
        """
        uri, (info, data) = self._read(location, self._storage.read_version)
        return replace(info, uri=uri), data

    def readable_uri(self, location: ImageLocation) -> str | None:
        """Return the URI of the object, or the path of the file behind all links, that :meth:`fetch` would read.

        None for an image that came with the row or is on the web, and for a link that leads out of the root.
        """
        if location.data is not None or scheme_of(location.key) in ("http", "https"):
            return None
        try:
            return self._real_uri(location)
        except RowError:
            return None

    def _real_uri(self, location: ImageLocation) -> str:
        if scheme_of(location.key) == "file":
            return self._local_root(location.key).real_path(location.key)
        uri = self._objects.locate(location.key).key
        if scheme_of(uri) not in BUCKET_STORES and not self._storage.canonical(uri).startswith(self._canonical_root):
            raise RowError(
                Reason.IMAGE_FORBIDDEN, f"{location} leads out of the image root by a symbolic link to elsewhere"
            )
        return uri

    @cached_property
    def _canonical_root(self) -> str:
        return f"{self._storage.canonical(self._policy.root).rstrip('/')}/"

    @contextmanager
    def _held(self, location: ImageLocation) -> Iterator[tuple[str, str]]:
        """Yield what to read, and its real URI."""
        if scheme_of(location.key) == "file":
            with self._local_root(location.key).held(location.key) as paths:
                yield paths
        else:
            yield (uri := self._real_uri(location)), uri

    def _read(self, location: ImageLocation, read: Callable[[str, int], ReadT]) -> tuple[str, ReadT]:
        """Return the real URI of an image, and what reading it gave."""
        in_bucket = scheme_of(location.key) != "file"
        try:
            with self._held(location) as (held, uri):
                data = read(held, self._policy.max_bytes)
        except KeyNotSupported:
            raise RowError(
                Reason.IMAGE_NOT_FOUND, f"{location} cannot be read: its key is empty between two slashes, or such"
            ) from None
        except ObjectNotFound:
            raise RowError(Reason.IMAGE_NOT_FOUND, f"there is no image at {location}") from None
        except AccessDenied:
            if in_bucket:
                self._closed_buckets.was_denied(location.key)
            raise RowError(Reason.IMAGE_FORBIDDEN, f"the access to {location} was denied") from None
        except ObjectTooLarge:
            raise RowError(
                Reason.IMAGE_TOO_LARGE, f"{location} has more than the {self._policy.max_bytes:,} bytes accepted"
            ) from None
        if in_bucket:
            self._closed_buckets.was_read(uri)
        return uri, data

    def _locate_text(self, reference: str) -> ImageLocation:
        if reference[:5].lower() == "data:":
            return locate_data_uri(reference, self._policy.max_bytes)
        inline = locate_base64(reference, self._policy.max_bytes)
        if inline is not None:
            return inline
        _check_characters(reference)
        opaque = _OPAQUE.match(reference)
        scheme = scheme_of(reference)
        if scheme in ("http", "https"):
            return self._allowed_web(reference).locate(reference)
        if reference[:7].lower() == "file://":
            try:
                path = file_uri_path(reference)
            except ValueError as error:
                raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(reference)} is not a local file: {error}") from None
            return self._local_root(reference).absolute(path, reference)
        if scheme != "file":
            return self._objects.locate(reference)
        if opaque is not None:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"images are not read from '{opaque[0]}' references")
        if reference.startswith("/"):
            return self._local_root(reference).absolute(reference, reference)
        return (self._root or self._objects).relative(reference)

    def _local_root(self, reference: str) -> LocalRoot:
        if self._root is None:
            root = shown(self._objects.root or "")
            raise RowError(
                Reason.IMAGE_FORBIDDEN, f"{shown(reference)} is on the local disk, but the image root is {root}"
            )
        return self._root

    def _allowed_web(self, url: str) -> WebImages:
        if self._web is None:
            raise RowError(
                Reason.IMAGE_FORBIDDEN, f"{shown(url)}: no web host is allowed; name it in image_hosts to fetch it"
            )
        return self._web


def _from_struct(struct: Mapping[object, object]) -> object:
    """Return the bytes or the path of Hugging Face's image struct."""
    if "bytes" not in struct and "path" not in struct:
        raise RowError(Reason.IMAGE_UNREADABLE, "a struct that names an image has a field 'bytes' or 'path'")
    data = struct.get("bytes")
    return struct.get("path") if _is_missing(data) else data


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    # A missing value of pandas: NaN, or NA and NaT, which do not compare like numbers.
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, Real) and value != value)
    )


def _check_characters(reference: str) -> None:
    if "\0" in reference:
        raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(reference)} holds a NUL character")
    try:
        reference.encode()
    except UnicodeEncodeError:
        raise RowError(
            Reason.IMAGE_NOT_FOUND, f"{shown(reference)} is not valid Unicode, so nothing has this name"
        ) from None
