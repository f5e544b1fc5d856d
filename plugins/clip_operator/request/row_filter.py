"""Which rows a step of their own gets, by their scores."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, Self

_WORDS = {
    "min_score": "a score of {:.4f} or more",
    "max_score": "a score of {:.4f} or less",
    "min_percentile": "a percentile of {:g} or more",
    "keep_top": "a place among the best {:.6g} %",
}


@dataclass(frozen=True)
class RowFilter:
    """The limits that a row must keep, each of them, to be kept itself. One that is None is no limit, and a row without
    a score is never kept.

    :param min_score: the lowest score, or ``threshold`` as long as the suggested one is not known.
    :param max_score: the highest score.
    :param min_percentile: the lowest percentile among mismatched pairs, from 0 to 100.
    :param keep_top: of all rows with a score, whatever the other limits say of them, the share that scores best: so
        many rows exactly, rounded up; of rows with equal scores the first.
    """

    min_score: float | Literal["threshold"] | None = None
    max_score: float | None = None
    min_percentile: float | None = None
    keep_top: float | None = None

    @classmethod
    def of(cls, holder: object) -> Self | None:
        """Return the filter whose limits an object has among its attributes, or None if all are None."""
        found = cls(**{name: getattr(holder, name) for name in LIMITS})
        return found if found.limits else None

    @property
    def limits(self) -> dict[str, float | str]:
        """The limits that are set, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    def __str__(self) -> str:
        """Say for people what a row has that is kept; the threshold must be known."""
        values = {**self.limits, **({} if self.keep_top is None else {"keep_top": 100 * self.keep_top})}
        *others, last = (_WORDS[name].format(value) for name, value in values.items())
        return f"{', '.join(others)} and {last}" if others else last


LIMITS = tuple(field.name for field in fields(RowFilter))
