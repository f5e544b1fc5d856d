"""Picks the rows that stand for the others while all of them go by, and makes thumbnails of their images."""

from __future__ import annotations

import base64
import bisect
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from clip_operator.errors import RowError
from clip_operator.images import shown
from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.report.picked import PickedRows
from clip_operator.report.samples import MOST_FAILURES, MOST_PAIRS, Sample, Samples
from clip_operator.report.worst_rows import MOST_WORST_ROWS
from clip_operator.request import Shard
from clip_operator.scoring import RowResult, Rows
from clip_operator.storage import StorageError
from clip_operator.tables import held

_TEXT_CHARACTERS = 4000
"""Of one row's text: more than captions of vision-language models have."""

_DETAIL_CHARACTERS = 500
_BETWEEN_TEXTS = " · "

# An image that came with its row is remembered until the end, so a large one is not.
_MOST_BYTES = 4 << 20

_THREADS = 8


KeptT = TypeVar("KeptT")


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    """From 0, among the rows that were seen."""
    reference: object
    text: object
    result: RowResult


class _Lowest(Generic[KeptT]):
    """Keeps what belongs to the lowest ranks; of equal ones, what came first."""

    def __init__(self, most: int) -> None:
        self.kept: list[KeptT] = []
        self._most = most
        self._ranks: list[float] = []

    def add(self, rank: float, make: Callable[[], KeptT]) -> None:
        """Keep what is made, if its rank is low enough."""
        if len(self.kept) == self._most and rank >= self._ranks[-1]:
            return
        place = bisect.bisect_right(self._ranks, rank)
        self._ranks.insert(place, rank)
        self.kept.insert(place, make())
        del self._ranks[self._most :], self.kept[self._most :]


class SampleCollector:
    """Keeps the rows with the highest and the lowest scores, and the first ones of each reason without a score.

    Of rows with the same score the earlier ones are kept, so that it does not depend on how rows were cut into shards.

    :param shard: the part of the input that the rows are, if they are not all.
    """

    def __init__(self, shard: Shard | None) -> None:
        self._first_row = 0 if shard is None else shard.first_row or 0
        self._seen = 0
        self._best = _Lowest[_Row](MOST_PAIRS)
        self._worst = _Lowest[_Row](MOST_PAIRS)
        self._listed = _Lowest[Sample](MOST_WORST_ROWS)  # so many images are not kept
        self._failures: defaultdict[str, list[Sample]] = defaultdict(list)

    def add(self, rows: Rows[Any], results: list[RowResult]) -> None:
        """Take in the next rows."""
        for index, result in enumerate(results):
            row = partial(self._row, rows, index, result)
            if result.error is not None:
                examples = self._failures[result.error.reason.value]
                if len(examples) < MOST_FAILURES:
                    examples.append(self._sample(row()))
            elif result.score is not None:
                self._best.add(-result.score, row)
                self._worst.add(result.score, row)
                self._listed.add(result.score, lambda row=row: self._sample(row()))
        self._seen += len(results)

    def picked(self, images: ImageWorkers) -> PickedRows:
        """Return what was kept, the best and the worst with thumbnails of the images that can be had.

        An image that cannot be had any more is none of the job's troubles, and stays without one.
        """
        best, worst = self._best.kept, self._worst.kept
        rows = {row.index: row for row in (*best, *worst)}
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="clip-thumbnail") as threads:
            made = threads.map(lambda row: _thumbnail(images, row.reference), rows.values())
            thumbnails = dict(zip(rows, made, strict=True))
        samples = Samples(
            best=[self._sample(row, thumbnails[row.index]) for row in best],
            worst=[self._sample(row, thumbnails[row.index]) for row in worst],
            failures=dict(sorted(self._failures.items())),
        )
        return PickedRows(samples, self._listed.kept)

    def _row(self, rows: Rows[Any], index: int, result: RowResult) -> _Row:
        return _Row(self._seen + index, _kept(rows.references[index]), rows.texts[index], result)

    def _sample(self, row: _Row, thumbnail: str | None = None) -> Sample:
        result = row.result
        texts = [text for text in held(row.text) if isinstance(text, str)]
        sentence, sentence_score = result.least or (None, None)
        return Sample(
            row=self._first_row + row.index + 1,
            image=_named(row.reference),
            text=_excerpt(_BETWEEN_TEXTS.join(texts), _TEXT_CHARACTERS) if texts else None,
            score=result.score,
            sentence=None if sentence is None else _printable(sentence),
            sentence_score=sentence_score,
            thumbnail=thumbnail,
            detail=None if result.error is None else _excerpt(result.error.detail, _DETAIL_CHARACTERS),
        )


class _TooLarge:
    """Stands for an image that came with its row and is not kept."""

    def __init__(self, size: int) -> None:
        self.size = size


@dataclass(frozen=True, slots=True)
class _Several:
    """Stands for the images of a row that has more than one."""

    first: object
    count: int


def _kept(reference: object) -> object:
    """Return what to remember of a row's image; of several, the first one's, and how many there are."""
    if isinstance(reference, list | tuple) and reference:
        return _Several(_kept(reference[0]), len(reference))
    data = reference.get("bytes") if isinstance(reference, Mapping) else reference
    if isinstance(data, bytes | bytearray | memoryview | str) and len(data) > _MOST_BYTES:
        return _TooLarge(len(data))
    return reference


def _named(reference: object) -> str:
    """Return what a person may read of what names an image."""
    if isinstance(reference, _Several):
        return f"{_named(reference.first)} and {reference.count - 1:,} more"
    if isinstance(reference, Mapping):
        reference = reference.get("path") or reference.get("bytes")
    if isinstance(reference, _TooLarge):
        return f"in the row itself, {reference.size:,} bytes"
    if isinstance(reference, bytes | bytearray | memoryview):
        return f"in the row itself, {len(reference):,} bytes"
    return "" if reference is None else shown(_printable(str(reference)))


def _thumbnail(images: ImageWorkers, reference: object) -> str | None:
    if isinstance(reference, _Several):
        reference = reference.first
    try:
        return base64.b64encode(images.thumbnail(images.locate(reference))).decode()
    except (RowError, StorageError):
        return None


def _excerpt(text: str, characters: int) -> str:
    text = _printable(text)
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def _printable(text: str) -> str:
    """Return the text without halves of surrogate pairs, which no file can hold."""
    return text.encode(errors="replace").decode()
