"""The pipeline: prepare rows in threads, encode them in batches, give results back in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from clip_operator.errors import Cancelled, JobError, Reason, RowError
from clip_operator.scoring.result import RowResult

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from clip_operator.model import ClipEncoder, Pixels

BatchT = TypeVar("BatchT")

# Threads that fetch, decode and resize: enough to hide an object store's latency.
_PREPARING_THREADS = 16

# How many of them decode and resize at once. More than there are cores gain nothing, and each holds a whole image in
# memory: some 8 bytes a pixel of images that a data set may make as large as the job accepts.
_DECODING_THREADS = min(8, os.cpu_count() or 1)

# Batches that are being prepared while one is in the model.
_BATCHES_AHEAD = 2

_SECONDS_TO_NOTICE_STOP = 0.5


@dataclass(frozen=True)
class _Pair:
    """A row that is ready for the model."""

    pixels: Pixels
    text: str


class ImageSource(Protocol):
    """Where images come from. Both methods are called from many threads and raise :class:`RowError`."""

    def read(self, reference: object) -> bytes:
        """Return the bytes of the image file that a row's reference names."""

    def decode(self, data: bytes) -> Image.Image:
        """Return its pixels, in mode RGB."""


class Scorer:
    """Scores image-text pairs with one encoder.

    :param encoder: the model.
    :param images: where images come from.
    :param stop: when set, scoring raises :class:`Cancelled` before the next batch.
    """

    def __init__(self, encoder: ClipEncoder, images: ImageSource, stop: threading.Event) -> None:
        self._encoder = encoder
        self._images = images
        self._stop = stop
        self._decoding = threading.BoundedSemaphore(_DECODING_THREADS)

    def score(
        self, batches: Iterable[tuple[BatchT, Sequence[object], Sequence[object]]]
    ) -> Iterator[tuple[BatchT, list[RowResult]]]:
        """Yield each batch with the results of its rows, in order.

        :param batches: whatever the caller calls a batch, its rows' image references, and its rows' texts.
        :raises Cancelled: ``stop`` was set.
        :raises JobError: what is not one row's fault, such as a store that does not answer.
        """
        ahead: deque[tuple[BatchT, list[Future[_Pair | RowError]]]] = deque()
        threads = ThreadPoolExecutor(_PREPARING_THREADS, thread_name_prefix="clip-prepare")
        try:
            for batch, references, texts in batches:
                ahead.append(
                    (batch, [threads.submit(self._prepare, r, t) for r, t in zip(references, texts, strict=True)])
                )
                if len(ahead) > _BATCHES_AHEAD:
                    yield self._finish(*ahead.popleft())
            while ahead:
                yield self._finish(*ahead.popleft())
        finally:
            # Not waited for: a thread that hangs on a slow host must not hold up the end of a job that was stopped.
            threads.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, reference: object, text: object) -> _Pair | RowError:
        try:
            # The text first: it costs nothing, and a row without one needs no image.
            caption = _checked(text)
            data = self._images.read(reference)
            with self._decoding:
                return _Pair(self._encoder.preprocess(self._images.decode(data)), caption)
        except RowError as error:
            return error

    def _finish(self, batch: BatchT, prepared: list[Future[_Pair | RowError]]) -> tuple[BatchT, list[RowResult]]:
        pending = set(prepared)
        while pending:
            done, pending = wait(pending, timeout=_SECONDS_TO_NOTICE_STOP, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()  # raises at once what is not one row's fault, without waiting for the rows before it
            if self._stop.is_set():
                raise Cancelled("stopped before all rows were scored; nothing was written")
        rows = [future.result() for future in prepared]
        pairs = [row for row in rows if isinstance(row, _Pair)]
        scored = iter(self._score(pairs) if pairs else [])
        return batch, [next(scored) if isinstance(row, _Pair) else RowResult(None, error=row) for row in rows]

    def _score(self, pairs: list[_Pair]) -> list[RowResult]:
        images = self._encoder.encode_images([pair.pixels for pair in pairs])
        texts = self._encoder.encode_texts([pair.text for pair in pairs])
        scores = alignment(images, texts.embeddings)
        if not np.isfinite(scores).all():
            raise JobError(
                "the model gave a score that is not a number; its weights are damaged, or the precision is too low: "
                "try precision fp32"
            )
        # The shortest decimal of the float32 is what the computation knows; its float64 expansion would pretend more.
        return [RowResult(float(str(s)), truncated=t) for s, t in zip(scores, texts.truncated, strict=True)]


def alignment(images: torch.Tensor, texts: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return (cos + 1) / 2 for each pair of rows.

    The formula of DataFlow's ``ImageCLIPEvaluator``: the cosine of CLIP embeddings, mapped from [-1, 1] to [0, 1].

    :param images: float32 [pairs, dimensions], rows of length 1.
    :param texts: float32 [pairs, dimensions], rows of length 1.
    :returns: float32 [pairs], within [0, 1].
    """
    cosine = (images * texts).sum(dim=-1)
    scores: np.ndarray[tuple[int], np.dtype[np.float32]] = ((cosine + 1) / 2).clamp(0, 1).numpy()
    return scores


def _checked(text: object) -> str:
    if text is None or (isinstance(text, float) and text != text):
        raise RowError(Reason.TEXT_MISSING, "the caption is absent or null")
    if not isinstance(text, str):
        raise RowError(Reason.TEXT_INVALID, f"the caption is of type {type(text).__name__}, not a string")
    if not text.strip():
        raise RowError(Reason.TEXT_EMPTY, "the caption is empty")
    return text
