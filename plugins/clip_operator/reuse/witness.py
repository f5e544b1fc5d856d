"""Which version of an image a job has really read: it may have been replaced since it was looked up."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING

from clip_operator.images import ImageLoader, ImageLocation, identity_of

if TYPE_CHECKING:
    from PIL import Image

_SEVERAL = ""


class WitnessedImages:
    """Gives images as the loader does, and remembers of which version they were. One instance serves many threads.

    :param images: the loader.
    :param most: how many images to remember; more than a scorer remembers the embeddings of, so that a row which takes
        an embedding from memory is not taken for one of a version that was read later.
    """

    def __init__(self, images: ImageLoader, most: int) -> None:
        self._images = images
        self._most = most
        self._read: OrderedDict[bytes, str] = OrderedDict()
        self._lock = Lock()

    def locate(self, reference: object) -> ImageLocation:
        """Return where the image of a row's reference is, as :meth:`ImageLoader.locate` does."""
        return self._images.locate(reference)

    def decode(self, data: bytes, at_least: int | None = None) -> AbstractContextManager[Image.Image]:
        """Give an image's pixels, as :meth:`ImageLoader.decode` does."""
        return self._images.decode(data, at_least)

    def fetch(self, location: ImageLocation) -> bytes:
        """Return the bytes of the image file, as :meth:`ImageLoader.fetch` does."""
        if self._images.readable_uri(location) is None:
            return self._images.fetch(location)
        info, data = self._images.fetch_version(location)
        key, identity = _digest(location), identity_of(info) or _SEVERAL
        with self._lock:
            before = self._read.get(key, identity)
            self._read[key] = identity if before == identity else _SEVERAL
            self._read.move_to_end(key)
            if len(self._read) > self._most:
                self._read.popitem(last=False)
        return data

    def expect(self, location: ImageLocation) -> None:
        """Say that a row which comes now shows this image."""
        key = _digest(location)
        with self._lock:
            if key in self._read:
                self._read.move_to_end(key)

    def was_read_as(self, location: ImageLocation, identity: str) -> bool:
        """Tell whether the image was read in this version and in no other."""
        with self._lock:
            return self._read.get(_digest(location)) == identity


def _digest(location: ImageLocation) -> bytes:
    return hashlib.blake2b(location.key.encode("utf-8", "surrogateescape"), digest_size=16).digest()
