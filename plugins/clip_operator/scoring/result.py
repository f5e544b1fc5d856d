"""What scoring says of one row."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

from clip_operator.errors import JobError, RowError
from clip_operator.request import OnError


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row's score, or the reason why it has none.

    :param score: (cos + 1) / 2 in [0, 1]; None exactly where there is an ``error``.
    :param truncated: the text was longer than the model reads.
    :param error: why the row cannot be scored.
    :param mismatched: the scores of the row's image with texts of other rows, as
        :func:`clip_operator.scoring.mismatched.packed` writes them, where the row brings them along; else None.
    :param scores: those of each of its pairs, image by image, if it has several images or texts and all are asked for;
        ``score`` is their mean then.
    :param least: of a truncated text, the sentence that agrees least with the image, and its score; None where
        sentences were not asked for.
    :param unturned: the image's EXIF says that it is to be turned, and it was not.
    """

    score: float | None
    truncated: bool = False
    error: RowError | None = None
    mismatched: bytes | None = None
    least: tuple[str, float] | None = None
    scores: tuple[float, ...] | None = None
    unturned: bool = False


def written_score(value: object, on_error: OnError) -> float | None:
    """Return the score that a row of a written output has, or None if the row could not be scored.

    :param value: the cell of the score column. In CSV numbers are text, and nothing is the empty string.
    :param on_error: what the rows got that could not be scored. A pair that was has no cosine of exactly -1.
    :raises JobError: it has none that a score can be.
    """
    if value is None or value == "":
        return None
    score = math.nan
    with suppress(ValueError):
        score = float(str(value))
    if not 0 <= score <= 1:
        raise JobError(
            "a cell in the column of scores holds no score from 0 to 1, so others than this package wrote there; clear "
            "the tasks that wrote it"
        )
    return None if score == 0 and on_error == "zero" else score
