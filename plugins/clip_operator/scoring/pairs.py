"""Pairs of encodings, and their scores once both are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_operator.errors import JobError
from clip_operator.scoring.alignment import alignment
from clip_operator.scoring.encodings import Encoding
from clip_operator.scoring.result import RowResult


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """One row's image and text.

    :param sentences: those of a text that is cut, if they are to be scored, each with its encoding.
    """

    image: Encoding
    text: Encoding
    sentences: Sequence[tuple[str, Encoding]] = ()

    @property
    def known(self) -> bool:
        """Whether all of its encodings are."""
        return self.image.known and self.text.known and all(encoding.known for _, encoding in self.sentences)


Row = RowResult | Pair
"""What a row needs: its encodings; or, where that is known at once, what becomes of it."""


@dataclass(frozen=True, eq=False, slots=True)
class Embedded:
    """Which of some rows have embeddings, and these.

    :param rows: intp [embedded], in order.
    :param images: float32 [embedded, dimensions].
    :param texts: float32 [embedded, dimensions].
    """

    rows: NDArray[np.intp]
    images: NDArray[np.float32]
    texts: NDArray[np.float32]


def row_results(rows: Sequence[Row]) -> tuple[list[RowResult], Embedded | None]:
    """Return what becomes of rows whose encodings are known, and the embeddings of those that are scored, if any are.

    :raises JobError: the model gave a score that is not a number.
    """
    pairs = [row for row in rows if isinstance(row, Pair) and row.image.error is None]
    embedded, scored = None, iter(list[RowResult]())
    if pairs:
        places = [at for at, row in enumerate(rows) if isinstance(row, Pair) and row.image.error is None]
        images, texts = _stacked(pair.image for pair in pairs), _stacked(pair.text for pair in pairs)
        embedded = Embedded(np.array(places, np.intp), images, texts)
        scored = map(_result, pairs, _scores(images, texts))
    results = []
    for row in rows:
        if isinstance(row, RowResult):
            results.append(row)
        elif row.image.error is not None:
            results.append(RowResult(None, error=row.image.error))
        else:
            results.append(next(scored))
    return results, embedded


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
