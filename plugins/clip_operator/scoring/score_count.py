"""Exact sums of scores, in memory that does not grow with them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from clip_operator.proof.manifest import ScoreStatistics
from clip_operator.scoring.histogram import quantiles

# Sums are of whole numbers in units of 2^-64, which leaves every double above 0.0005 as it is: they come out the same
# in whatever order, and in however many shards, the scores are counted.
_UNIT_BITS = 64


class ScoreCount:
    """Counts scores one at a time, or those that another has counted."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        """In units of 2^-64."""
        self.squares = 0
        """In units of 2^-128."""
        self._minimum = math.inf
        self._maximum = -math.inf

    def add(self, score: float) -> None:
        """Count one score."""
        self.count += 1
        units = int(math.ldexp(score, _UNIT_BITS))
        self.total += units
        self.squares += units * units
        self._minimum = min(self._minimum, score)
        self._maximum = max(self._maximum, score)

    def add_counted(self, scores: ScoreStatistics, total: int, squares: int) -> None:
        """Count the scores that another has counted, as its :meth:`statistics` and sums say."""
        self.count += scores.count
        self.total += total
        self.squares += squares
        self._minimum = min(self._minimum, scores.minimum)
        self._maximum = max(self._maximum, scores.maximum)

    def statistics(self, counts: NDArray[np.int64]) -> ScoreStatistics | None:
        """Return the statistics of the scores, or None if there are none.

        :param counts: how many of them are in each bin, for the quantiles: int64 [10,000].
        """
        if self.count == 0:
            return None
        variance = (self.count * self.squares - self.total**2) / (self.count << _UNIT_BITS) ** 2
        return ScoreStatistics(
            count=self.count,
            mean=round(self.total / (self.count << _UNIT_BITS), 7),
            standard_deviation=round(math.sqrt(variance), 7),
            minimum=self._minimum,
            maximum=self._maximum,
            quantiles={
                name: min(max(value, self._minimum), self._maximum) for name, value in quantiles(counts).items()
            },
        )
