"""What scoring says of one row."""

from __future__ import annotations

from dataclasses import dataclass

from clip_operator.errors import RowError
from clip_operator.request import OnError


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row's score, or the reason why it has none.

    :param score: (cos + 1) / 2 in [0, 1]; None exactly where there is an ``error``.
    :param truncated: the text was longer than the model reads.
    :param error: why the row cannot be scored.
    :param mismatched: the scores of the row's image with texts of other rows, as
        :func:`clip_operator.scoring.mismatched.packed` writes them, where the row brings them along; else None.
    :param least: of a truncated text, the sentence that agrees least with the image, and its score; None where
        sentences were not asked for.
    """

    score: float | None
    truncated: bool = False
    error: RowError | None = None
    mismatched: bytes | None = None
    least: tuple[str, float] | None = None


def written_score(value: object, on_error: OnError) -> float | None:
    """Return the score that a row of a written output has, or None if the row could not be scored.

    :param value: the cell of the score column. In CSV numbers are text, and nothing is the empty string.
    :param on_error: what the rows got that could not be scored. A pair that was has no cosine of exactly -1.
    """
    score = None if value in (None, "") else float(str(value))
    return None if score == 0 and on_error == "zero" else score
