"""Tries a few of the images that a table names: where none of them comes, the rest is not worth a model or a pod."""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from clip_operator.errors import Cancelled, Reason, RowError
from clip_operator.images import ImageLoader, ImageLocation
from clip_operator.inputs.image_access import what_to_check
from clip_operator.inputs.path_hints import PathHints, path_in
from clip_operator.request import EvaluationRequest
from clip_operator.tables import Chunk, TableReader, held

FIRST_SAMPLE = 16
"""How many images of the first rows are tried."""

_FIRST_ROWS = 256
_SAMPLE_ON_SUSPICION = 64

# A sample without one image that comes proves nothing unless it would be as rare as this in a job that may succeed.
_RARE = 1e-6

_EXAMPLES = 3
_THREADS = 8
_SECONDS_TO_NOTICE_STOP = 0.2

Look = Callable[[ImageLocation], object]
"""Looks at an image's place, and raises :class:`RowError` if the image cannot be had. Called from several threads."""


@dataclass(frozen=True)
class ImageSample:
    """Some of the rows that name an image and have a text.

    :param places: the rows by index, in order, and where each one's image is, or why that is nowhere.
    :param drawn_from: how many such rows were seen.
    :param paths: what these rows say of it, as much as is worth a look; of an image inside a row nothing.
    """

    places: Sequence[tuple[int, ImageLocation | RowError]]
    drawn_from: int
    paths: Mapping[int, object] = field(default_factory=dict)


def no_image_comes(
    table: TableReader, request: EvaluationRequest, images: ImageLoader, look: Look, stop: threading.Event
) -> str | None:
    """Return in words that no image of the table can be had, or None if one can or if that is in doubt.

    A bad start says little of the whole, so the table is read once more, and rows from everywhere are tried, before
    anything is said. Rows without a text are left out, because they need no image. One image that comes, even one that
    came inside its row, settles it.

    :param look: what is done to find out; usually ``images.fetch``.
    :raises Cancelled: ``stop`` was set.
    :raises StorageError: ``look`` met what is not one image's matter.
    """
    if request.max_error_rate >= 1:
        return None
    first = draw(islice(table.chunks(_FIRST_ROWS), 1), request, images, FIRST_SAMPLE)
    if not failures(first, look, stop):
        return None
    sample = draw(_until(stop, table.chunks(_FIRST_ROWS)), request, images, _SAMPLE_ON_SUSPICION)
    failed = failures(sample, look, stop)
    # Where most rows may fail, that so many fail together is no wonder.
    certain = len(failed) == sample.drawn_from or request.max_error_rate ** len(failed) < _RARE
    return describe_failures(failed, sample, request) if failed and certain else None


def draw(chunks: Iterable[Chunk], request: EvaluationRequest, images: ImageLoader, most: int) -> ImageSample:
    """Draw rows that name an image and have a text, in one pass: as if at random, and the same ones every time.

    Not at equal distances, because there are data sets that repeat a pattern.
    """
    # A heap, with the row that would go first at its root.
    drawn: list[tuple[int, int, ImageLocation | RowError, object]] = []
    seen = 0
    for row, reference in _candidates(chunks, request):
        place = _located(images, reference)
        if place is None:
            continue
        if isinstance(place, ImageLocation) and place.inline:
            return ImageSample([(row, place)], seen + 1)  # it settles the matter, and many would fill the memory
        seen += 1
        lot = -int.from_bytes(hashlib.blake2b(row.to_bytes(8, "big"), digest_size=8).digest(), "big")
        if len(drawn) < most:
            heapq.heappush(drawn, (lot, row, place, path_in(reference)))
        else:
            heapq.heappushpop(drawn, (lot, row, place, path_in(reference)))
    places = sorted(((row, place) for _, row, place, _ in drawn), key=lambda pair: pair[0])
    return ImageSample(places, seen, {row: path for _, row, _, path in drawn})


def failures(sample: ImageSample, look: Look, stop: threading.Event) -> list[tuple[int, RowError]]:
    """Look at the images of a sample; return why none can be had, by row, or nothing if one can.

    :raises Cancelled: ``stop`` was set.
    :raises StorageError: ``look`` met what is not one image's matter.
    """
    failed: dict[int, RowError] = {}
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="clip-preflight")
    try:
        # Nearly always the first one comes, and no other need be fetched.
        for some in (sample.places[:1], sample.places[1:]):
            rows = {threads.submit(_attempt, look, place): row for row, place in some}
            waiting = set(rows)
            while waiting:
                done, waiting = wait(waiting, _SECONDS_TO_NOTICE_STOP, FIRST_COMPLETED)
                _check_not_stopped(stop)
                for attempt in done:
                    error = attempt.result()
                    if error is None:
                        return []
                    failed[rows[attempt]] = error
    finally:
        # Not waited for: a host that does not answer must not hold up what another image has settled.
        threads.shutdown(wait=False, cancel_futures=True)
    return sorted(failed.items())


def describe_failures(failed: Sequence[tuple[int, RowError]], sample: ImageSample, request: EvaluationRequest) -> str:
    """Return what became of a sample of which nothing came."""
    counts = Counter(error.reason for _, error in failed)
    hints = PathHints(request)
    for row, error in failed:
        hints.add(sample.paths.get(row), error.reason)
    examples: dict[Reason, tuple[int, RowError]] = {}
    for row, error in failed:
        examples.setdefault(error.reason, (row, error))
    shown = [*examples.values(), *(pair for pair in failed if pair not in examples.values())][:_EXAMPLES]
    of = f" of {sample.drawn_from:,}" if sample.drawn_from > len(failed) else ""
    return (
        f"none of the {len(failed):,}{of} images that were tried can be had ("
        + ", ".join(f"{reason.value}: {count:,}" for reason, count in counts.most_common())
        + "). "
        + "; ".join(f"Row {row + 1:,}: {error.detail}" for row, error in sorted(shown, key=lambda pair: pair[0]))
        + ". "
        + ". ".join([what_to_check(request, counts), *hints.lines()])
    )


def _candidates(chunks: Iterable[Chunk], request: EvaluationRequest) -> Iterator[tuple[int, object]]:
    for chunk in chunks:
        references, texts = chunk.column(request.input_image_key), chunk.column(request.input_text_key)
        for row, (reference, text) in enumerate(zip(references, texts, strict=True), chunk.first_row):
            if all(isinstance(item, str) and item.strip() for item in held(text)):
                for item in held(reference)[:1]:  # one that comes settles it
                    yield row, item


def _located(images: ImageLoader, reference: object) -> ImageLocation | RowError | None:
    """Return where the image is, or why that is nowhere; None if the row names none."""
    try:
        return images.locate(reference)
    except RowError as error:
        if error.reason is Reason.IMAGE_MISSING:
            return None
        # It must not keep the frames that it came through, with the reference in them: that may be a whole image.
        error.__traceback__ = error.__context__ = None
        return error


def _attempt(look: Look, place: ImageLocation | RowError) -> RowError | None:
    if isinstance(place, RowError):
        return place
    try:
        look(place)
    except RowError as error:
        return error
    return None


def _until(stop: threading.Event, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        _check_not_stopped(stop)
        yield chunk


def _check_not_stopped(stop: threading.Event) -> None:
    if stop.is_set():
        raise Cancelled("stopped before anything was scored")
