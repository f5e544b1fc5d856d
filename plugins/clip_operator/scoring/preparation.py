"""Lets images be fetched, decoded and resized, a bounded number at a time, and holds their pixels for the model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from clip_operator.images.workers.task import ImageTask
from clip_operator.machine.processors import usable_cpus

if TYPE_CHECKING:
    from clip_operator.images import ImageLocation
    from clip_operator.model import ClipEncoder, Pixels
    from clip_operator.resizing import Resizing


class ImageSource(Protocol):
    """Where images come from: :class:`clip_operator.images.workers.pool.ImageWorkers`, or what stands for it."""

    @property
    def decoding(self) -> float:
        """The share of the time spent on images since this was last asked in which they were decoded, not fetched."""

    def locate(self, reference: object) -> ImageLocation:
        """Return where the image of a row's reference is, without looking there, or raise :class:`RowError`."""

    def preparing(
        self, resizing: Resizing | None, slots: int, *, reduced: bool = False, versions: bool = False
    ) -> AbstractContextManager[Callable[[Sequence[ImageTask]], None]]:
        """Give what takes images; each one's ``notify`` is called, from another thread, when it is done.

        :param versions: note which version of its file each was.
        """

    def slot(self, task: ImageTask) -> memoryview:
        """Return the pixels of an image that is done and was resized."""


@dataclass(eq=False, slots=True)
class PreparedImage(ImageTask):
    """One distinct image on its way to the model.

    :param pixels: what the encoder takes, if it is ``prepared`` and there is no ``error``.
    """

    pixels: Pixels | None = None
    prepared: bool = False


JobT = TypeVar("JobT", bound=PreparedImage)


class Preparation(Generic[JobT]):
    """Images that wait, are under way, or are ready and not yet released.

    All methods belong to one thread, but for ``done``.

    :param submit: takes images whose pixels are wanted.
    :param images: where that is from.
    :param encoder: whose preprocessing to apply.
    :param most: how many images may be under way or ready and not yet released.
    :param done: called, from some thread, with each image that is done.
    """

    def __init__(
        self,
        submit: Callable[[Sequence[ImageTask]], None],
        images: ImageSource,
        encoder: ClipEncoder,
        most: int,
        done: Callable[[JobT], None],
    ) -> None:
        self._submit = submit
        self._images = images
        self._encoder = encoder
        self._done = done
        self._queued: deque[JobT] = deque()
        self._free = list(range(most))
        # Images that are not resized before they come here may be large, so that there are only as many as are needed.
        self._most_unprepared = most if encoder.resizing is not None else 2 * usable_cpus()
        self._unprepared = 0  # started
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(usable_cpus(), thread_name_prefix="clip-prepare")

    @property
    def queued(self) -> int:
        """How many images were submitted and not yet started."""
        return len(self._queued)

    def submit(self, job: JobT) -> None:
        """Put an image behind those that wait. :meth:`start` starts it."""
        self._queued.append(job)

    def start(self) -> None:
        """Start as many of the waiting images as the bounds allow."""
        jobs = []
        while self._queued and self._free and self._unprepared < self._most_unprepared:
            job = self._queued.popleft()
            with self._lock:
                self._unprepared += 1
            job.slot = self._free.pop()
            job.notify = self._ready
            jobs.append(job)
        if jobs:
            self._submit(jobs)

    def release(self, job: JobT) -> None:
        """Say that an image's pixels are no longer held."""
        self._free.append(job.slot)

    def _ready(self, job: JobT) -> None:
        if job.size is not None:
            width, height = job.size
            job.pixels = np.frombuffer(self._images.slot(job), np.uint8).reshape(height, width, 3)
        elif job.error is None:
            self._threads.submit(self._preprocess, job)
            return
        self._finish(job)

    def _preprocess(self, job: JobT) -> None:
        image: Any = job.result
        job.result = None
        try:
            job.pixels = self._encoder.preprocess(image)
        except BaseException as error:  # whatever it is, it must not leave the image waiting for ever
            job.error = error
        self._finish(job)

    def _finish(self, job: JobT) -> None:
        with self._lock:
            self._unprepared -= 1
        job.prepared = True
        self._done(job)

    def close(self) -> None:
        """Drop what is left to do."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@contextmanager
def preparation(
    images: ImageSource, encoder: ClipEncoder, reduced: bool, most: int, done: Callable[[JobT], None]
) -> Iterator[Preparation[JobT]]:
    """Give the :class:`Preparation` of a run; what it has not done is dropped at the end.

    :param reduced: let JPEGs be decoded at a reduced size where the model needs less.
    """
    with images.preparing(encoder.resizing, most, reduced=reduced) as submit:
        prepared = Preparation(submit, images, encoder, most, done)
        try:
            yield prepared
        finally:
            prepared.close()
