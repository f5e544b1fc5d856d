"""Fetches, decodes and resizes images in threads, a bounded number of images and bytes at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from clip_operator.errors import Reason, RowError
from clip_operator.machine.processors import usable_cpus

if TYPE_CHECKING:
    from PIL import Image

    from clip_operator.images import ImageLocation
    from clip_operator.model import ClipEncoder, Pixels

# Requests to an object store under way at once: at 30 ms each, a thousand images a second.
_FETCHING_THREADS = 32

# No further image is fetched while files of this many bytes wait for a decoder.
_FETCHED_BYTES = 128 << 20


class ImageSource(Protocol):
    """Where images come from. All methods are called from many threads and raise :class:`RowError`."""

    def locate(self, reference: object) -> ImageLocation:
        """Return where the image of a row's reference is, without looking there."""

    def fetch(self, location: ImageLocation) -> bytes:
        """Return the bytes of the image file."""

    def decode(self, data: bytes, at_least: int | None = None) -> AbstractContextManager[Image.Image]:
        """Give its pixels, in mode RGB; with ``at_least``, perhaps of a smaller image with twice as long sides."""


class Stage(Enum):
    """How far the preparation of an image is."""

    QUEUED = "queued"
    FETCHING = "fetch"
    DECODING = "decode"
    DONE = "done"


@dataclass(eq=False, slots=True)
class ImageJob:
    """One distinct image on its way to the model.

    :param location: where it is; dropped once it was fetched if it holds the whole file.
    :param pixels: the result, if ``stage`` is ``DONE`` and there is no ``error``.
    :param error: what went wrong: a :class:`RowError` if it is this image's fault.
    :param fetched_again: what was fetched first could not be decoded.
    """

    location: ImageLocation | None
    stage: Stage = Stage.QUEUED
    pixels: Pixels | None = None
    error: BaseException | None = None
    fetched_again: bool = False


JobT = TypeVar("JobT", bound=ImageJob)


class Preparation(Generic[JobT]):
    """The fetching and decoding threads. Close it after use.

    Pillow releases Python's lock while it decodes and resizes, so threads use every processor without the copies that
    processes would need.

    :param images: where images come from.
    :param encoder: whose preprocessing to apply.
    :param reduced: let JPEGs be decoded at a reduced size where the model needs less.
    :param most: how many images may be under way or ready and not yet taken.
    :param done: called from a thread with each job that is done.
    """

    def __init__(
        self, images: ImageSource, encoder: ClipEncoder, reduced: bool, most: int, done: Callable[[JobT], None]
    ) -> None:
        self._images = images
        self._encoder = encoder
        self._at_least = encoder.image_side if reduced else None
        self._most = most
        self._done = done
        self._queued: deque[JobT] = deque()
        self._taken = 0  # started and not yet released
        self._fetched_bytes = 0  # fetched and not yet decoded
        self._lock = threading.Lock()
        self._fetchers = ThreadPoolExecutor(_FETCHING_THREADS, thread_name_prefix="clip-fetch")
        self._decoders = ThreadPoolExecutor(usable_cpus(), thread_name_prefix="clip-decode")

    @property
    def queued(self) -> int:
        """How many jobs were submitted and not yet started."""
        return len(self._queued)

    def submit(self, job: JobT) -> None:
        """Put a job behind those that wait. :meth:`start` starts it."""
        self._queued.append(job)

    def start(self) -> None:
        """Start as many of the waiting jobs as the bounds allow."""
        while self._queued and self._taken < self._most and self._fetched_bytes < _FETCHED_BYTES:
            job = self._queued.popleft()
            self._taken += 1
            job.stage = Stage.FETCHING
            self._fetchers.submit(self._fetch, job)

    def release(self, images: int) -> None:
        """Say that this many jobs' results are no longer held."""
        self._taken -= images

    def _fetch(self, job: JobT) -> None:
        try:
            assert job.location is not None
            data = self._images.fetch(job.location)
        except BaseException as error:  # whatever it is, it must not leave the job waiting for ever
            self._finish(job, error)
            return
        if job.location.inline:
            job.location = None
        with self._lock:
            self._fetched_bytes += len(data)
        job.stage = Stage.DECODING
        self._decoders.submit(self._decode, job, data)

    def _decode(self, job: JobT, data: bytes) -> None:
        try:
            with self._images.decode(data, self._at_least) as image:
                job.pixels = self._encoder.preprocess(image)
        except BaseException as error:  # as above
            if not self._fetch_again(job, error):
                self._finish(job, error)
        else:
            self._finish(job, None)
        finally:
            with self._lock:
                self._fetched_bytes -= len(data)

    def _fetch_again(self, job: JobT, error: BaseException) -> bool:
        """Give an image that cannot be decoded a second chance, if it was fetched: it may have been cut on the way."""
        broken = isinstance(error, RowError) and error.reason is Reason.IMAGE_UNREADABLE
        if not broken or job.location is None or job.fetched_again:
            return False
        job.fetched_again = True
        job.stage = Stage.FETCHING
        try:
            self._fetchers.submit(self._fetch, job)
        except RuntimeError:  # the run is over, and its threads with it
            return False
        return True

    def _finish(self, job: JobT, error: BaseException | None) -> None:
        if isinstance(error, RowError):
            # It may be remembered for long, and must not keep the frames that it came through, with the file in them.
            error.__traceback__ = error.__context__ = None
        job.location, job.error, job.stage = None, error, Stage.DONE
        self._done(job)

    def close(self) -> None:
        """Drop what is left to do."""
        # Not waited for: a thread that hangs on a slow host must not hold up the end of a job that was stopped.
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
