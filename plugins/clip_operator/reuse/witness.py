"""Which version of an image a job has really read: it may have been replaced since it was looked up."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from clip_operator.images import ImageLocation, identity_of
from clip_operator.images.workers.task import ImageTask
from clip_operator.resizing import Resizing
from clip_operator.scoring import ImageSource
from clip_operator.storage import ObjectInfo

_SEVERAL = ""


class WitnessedImages:
    """Gives images as workers do, and remembers of which version they were. One instance serves many threads.

    :param images: the job's workers.
    :param most: how many images to remember; more than a scorer remembers the embeddings of, so that a row which takes
        an embedding from memory is not taken for one of a version that was read later.
    """

    def __init__(self, images: ImageSource, most: int) -> None:
        self._images = images
        self._most = most
        self._read: OrderedDict[bytes, str] = OrderedDict()
        self._lock = Lock()
        self.slot = images.slot

    @property
    def decoding(self) -> float:
        """See :attr:`ImageSource.decoding`."""
        return self._images.decoding

    def locate(self, reference: object) -> ImageLocation:
        """Return where the image of a row's reference is, as :meth:`ImageLoader.locate` does."""
        return self._images.locate(reference)

    @contextmanager
    def preparing(
        self, resizing: Resizing | None, slots: int, *, reduced: bool = False, versions: bool = True
    ) -> Iterator[Callable[[Sequence[ImageTask]], None]]:
        """Give a function that takes images, as :meth:`ImageSource.preparing` does."""
        with self._images.preparing(resizing, slots, reduced=reduced, versions=versions) as submit:

            def witnessed(tasks: Sequence[ImageTask]) -> None:
                for task in tasks:
                    task.notify = self._witnessing(task.notify)
                submit(tasks)

            yield witnessed

    def _witnessing(self, notify: Callable[[ImageTask], None]) -> Callable[[ImageTask], None]:
        def witness(task: ImageTask) -> None:
            if task.version is not None:
                self.saw(task.location, task.version)
            notify(task)

        return witness

    def saw(self, location: ImageLocation, version: ObjectInfo) -> None:
        """Say which version of an image was read."""
        key, identity = _digest(location), identity_of(version) or _SEVERAL
        with self._lock:
            before = self._read.get(key, identity)
            self._read[key] = identity if before == identity else _SEVERAL
            self._read.move_to_end(key)
            if len(self._read) > self._most:
                self._read.popitem(last=False)

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
