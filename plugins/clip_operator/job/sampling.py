"""Picks the rows that stand for the others while all of them go by, and makes thumbnails of their images."""

from __future__ import annotations

import base64
import bisect
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from clip_operator.errors import RowError
from clip_operator.images import shown
from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.report.samples import MOST_FAILURES, MOST_PAIRS, Sample, Samples
from clip_operator.request import Shard
from clip_operator.scoring import RowResult, Rows
from clip_operator.storage import StorageError
from clip_operator.tables import held

_TEXT_CHARACTERS = 500
_DETAIL_CHARACTERS = 500
_BETWEEN_TEXTS = " · "

# An image that came with its row is remembered until the end, so a large one is not.
_MOST_BYTES = 4 << 20

_THREADS = 8


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    """From 0, among the rows that were seen."""
    reference: object
    text: object
    score: float


class SampleCollector:
    """Keeps the rows with the highest and the lowest scores, and the first ones of each reason without a score.

    Of rows with the same score the earlier ones are kept, so that it does not depend on how rows were cut into shards.

    :param shard: the part of the input that the rows are, if they are not all.
    """

    def __init__(self, shard: Shard | None) -> None:
        self._first_row = 0 if shard is None else shard.first_row
        self._seen = 0
        self._best: list[_Row] = []
        self._worst: list[_Row] = []
        self._failures: defaultdict[str, list[Sample]] = defaultdict(list)

    def add(self, rows: Rows[Any], results: list[RowResult]) -> None:
        """Take in the next rows."""
        for index, result in enumerate(results):
            if result.error is not None:
                examples = self._failures[result.error.reason.value]
                if len(examples) < MOST_FAILURES:
                    row = self._row(rows, index, 0)
                    examples.append(self._sample(row, score=None, detail=result.error.detail))
            elif result.score is not None:
                score = result.score
                if len(self._best) < MOST_PAIRS or score > self._best[-1].score:
                    bisect.insort(self._best, self._row(rows, index, score), key=lambda row: (-row.score, row.index))
                    del self._best[MOST_PAIRS:]
                if len(self._worst) < MOST_PAIRS or score < self._worst[-1].score:
                    bisect.insort(self._worst, self._row(rows, index, score), key=lambda row: (row.score, row.index))
                    del self._worst[MOST_PAIRS:]
        self._seen += len(results)

    def samples(self, images: ImageWorkers) -> Samples:
        """Return what was kept, with thumbnails of the images that can be had.

        An image that cannot be had any more is none of the job's troubles, and stays without one.
        """
        rows = {row.index: row for row in (*self._best, *self._worst)}
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="clip-thumbnail") as threads:
            made = threads.map(lambda row: _thumbnail(images, row.reference), rows.values())
            thumbnails = dict(zip(rows, made, strict=True))

        def with_thumbnails(kept: list[_Row]) -> list[Sample]:
            return [self._sample(row, score=row.score, thumbnail=thumbnails[row.index]) for row in kept]

        return Samples(
            best=with_thumbnails(self._best),
            worst=with_thumbnails(self._worst),
            failures=dict(sorted(self._failures.items())),
        )

    def _row(self, rows: Rows[Any], index: int, score: float) -> _Row:
        return _Row(self._seen + index, _kept(rows.references[index]), rows.texts[index], score)

    def _sample(self, row: _Row, **fields: Any) -> Sample:
        number = None if self._first_row is None else self._first_row + row.index + 1
        if fields.get("detail") is not None:
            fields["detail"] = _excerpt(fields["detail"], _DETAIL_CHARACTERS)
        texts = [text for text in held(row.text) if isinstance(text, str)]
        text = _excerpt(_BETWEEN_TEXTS.join(texts), _TEXT_CHARACTERS) if texts else None
        return Sample(row=number, image=_named(row.reference), text=text, **fields)


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
