"""Pairs of encodings, and their scores once both are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_operator.errors import JobError, RowError
from clip_operator.request import Aggregate
from clip_operator.scoring.alignment import alignment
from clip_operator.scoring.encodings import Encoding
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.several import aggregated, of_item


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """One row's image and text.

    :param sentences: those of a text that is cut, if they are to be scored, each with its encoding.
    """

    image: Encoding
    text: Encoding
    sentences: Sequence[tuple[str, Encoding]] = ()

    @property
    def error(self) -> RowError | None:
        """Why it cannot be scored."""
        return self.image.error

    @property
    def known(self) -> bool:
        """Whether all of its encodings are."""
        return self.image.known and self.text.known and all(encoding.known for _, encoding in self.sentences)


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """One row's several images and texts, each image with each text."""

    images: Sequence[Encoding]
    texts: Sequence[Encoding]

    @property
    def known(self) -> bool:
        """Whether all of its encodings are."""
        return all(encoding.known for encoding in (*self.images, *self.texts))

    @property
    def error(self) -> RowError | None:
        """Why it cannot be scored: the first image's reason that has one."""
        for at, image in enumerate(self.images, 1):
            if image.error is not None:
                return of_item(image.error, "image", at, len(self.images))
        return None


Row = RowResult | Pair | Pairs
"""What a row needs: its encodings; or, where that is known at once, what becomes of it."""


@dataclass(frozen=True, eq=False, slots=True)
class Embedded:
    """Which of some rows have embeddings, and these.

    :param rows: intp [embedded], in order.
    :param images: float32 [embedded, dimensions]; of length 1, or less for the mean of several.
    :param texts: float32 [embedded, dimensions]; of length 1, or less for the mean of several.
    """

    rows: NDArray[np.intp]
    images: NDArray[np.float32]
    texts: NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class RowEmbeddings:
    """The embeddings of some rows, one of an image and one of a text a row; None for what could not be had.

    They may be the memory of a cache: whoever keeps them copies them before the next rows are asked for.

    :param images: float32 [dimensions] each, of length 1.
    :param texts: the same.
    """

    images: list[NDArray[np.float32] | None]
    texts: list[NDArray[np.float32] | None]


def row_embeddings(rows: Sequence[Row]) -> RowEmbeddings:
    """Return the embeddings that were computed for rows whose encodings are known, also of those without a score."""
    pairs = [row if isinstance(row, Pair) else None for row in rows]
    return RowEmbeddings(
        [None if pair is None else pair.image.embedding for pair in pairs],
        [None if pair is None else pair.text.embedding for pair in pairs],
    )


def row_results(rows: Sequence[Row], aggregate: Aggregate | None) -> tuple[list[RowResult], Embedded | None]:
    """Return what becomes of rows whose encodings are known, and the embeddings of those that have a score and can be
    paired with others, if there are any.

    Those of a row with several images or texts are the means of theirs, because the mean of the scores of all its pairs
    is what these score. Where another score is asked for, such a row has none.

    :raises JobError: the model gave a score that is not a number.
    """
    results = [row if isinstance(row, RowResult) else RowResult(None, error=row.error) for row in rows]
    pairs = {at: row for at, row in enumerate(rows) if isinstance(row, Pair) and row.error is None}
    several = {at: row for at, row in enumerate(rows) if isinstance(row, Pairs) and row.error is None}
    if not pairs and not several:
        return results, None
    images = [_stacked(pair.image for pair in pairs.values())] if pairs else []
    texts = [_stacked(pair.text for pair in pairs.values())] if pairs else []
    if pairs:
        for (at, pair), score in zip(pairs.items(), _scores(images[0], texts[0]), strict=True):
            results[at] = _result(pair, score)
    places = list(pairs)
    for at, row in several.items():
        of_images, of_texts = _stacked(row.images), _stacked(row.texts)
        results[at] = _aggregated(row, of_images, of_texts, aggregate)
        if aggregate in ("mean", "all"):
            places.append(at)
            images.append(of_images.mean(axis=0, keepdims=True))
            texts.append(of_texts.mean(axis=0, keepdims=True))
    if not places:
        return results, None
    order = np.argsort(places)
    return results, Embedded(np.array(places)[order], np.concatenate(images)[order], np.concatenate(texts)[order])


def _aggregated(
    row: Pairs, images: NDArray[np.float32], texts: NDArray[np.float32], aggregate: Aggregate | None
) -> RowResult:
    scores = _scores(np.repeat(images, len(texts), axis=0), np.tile(texts, (len(images), 1)))
    return RowResult(
        aggregated(scores, aggregate),
        truncated=any(text.truncated for text in row.texts),
        scores=tuple(scores) if aggregate == "all" else None,
        unturned=any(image.unturned for image in row.images),
    )


def _result(pair: Pair, score: float) -> RowResult:
    return RowResult(score, truncated=pair.text.truncated, least=_least_aligned(pair), unturned=pair.image.unturned)


def _least_aligned(pair: Pair) -> tuple[str, float] | None:
    """Return the sentence that agrees least with the image, the first of them, and its score."""
    if not pair.sentences:
        return None
    scores = _scores(_stacked([pair.image]), _stacked(encoding for _, encoding in pair.sentences))
    least = scores.index(min(scores))
    return pair.sentences[least][0], scores[least]


def _scores(images: NDArray[np.float32], texts: NDArray[np.float32]) -> list[float]:
    scores = alignment(images, texts)
    if not np.isfinite(scores).all():
        raise JobError(
            "the model gave a score that is not a number; its weights are damaged, or the precision is too low: "
            "try precision fp32"
        )
    # The shortest decimal of the float32 is what the computation knows; its float64 would pretend more.
    return [float(str(score)) for score in scores]


def _stacked(encodings: Iterable[Encoding]) -> NDArray[np.float32]:
    """Return the embeddings of known encodings: float32 [encodings, dimensions]."""
    return np.stack([encoding.embedding for encoding in encodings if encoding.embedding is not None])
