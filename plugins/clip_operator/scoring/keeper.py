"""Which rows a filter keeps, told row by row."""

from __future__ import annotations

from clip_operator.request import RowFilter
from clip_operator.scoring.best import Best
from clip_operator.scoring.null_distribution import NullDistribution


class Keeper:
    """Tells of each row, in their order, whether a filter keeps it.

    :param row_filter: the limits, the threshold being a number.
    :param null: the mismatched pairs' scores; needed with ``min_percentile``.
    :param best: which rows are the best; with ``keep_top`` None where no row has a score.
    """

    def __init__(self, row_filter: RowFilter, null: NullDistribution | None, best: Best | None) -> None:
        self._limits = row_filter
        self._null = null
        self._best = best
        self._ties = 0 if best is None else best.ties

    def keeps(self, score: float | None) -> bool:
        """Tell whether the next row is kept; None is the score of a row that has none."""
        return score is not None and self._is_within(score) and self._is_best(score)

    def _is_within(self, score: float) -> bool:
        least, most, percentile = self._limits.min_score, self._limits.max_score, self._limits.min_percentile
        assert least != "threshold"
        return (
            (least is None or score >= least)
            and (most is None or score <= most)
            and (percentile is None or (self._null is not None and self._null.percentile(score) >= percentile))
        )

    def _is_best(self, score: float) -> bool:
        """Tell it of each row once: of those with the lowest score among the best only the first few are."""
        if self._limits.keep_top is None:
            return True
        if self._best is None or score != self._best.score:
            return self._best is not None and score > self._best.score
        self._ties -= 1
        return self._ties >= 0
