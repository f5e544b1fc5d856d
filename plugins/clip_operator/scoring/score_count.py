"""Sums and a histogram of scores, in memory that does not grow with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from clip_operator.proof.manifest import ScoreStatistics, ScoreSums

BINS = 10_000
"""Quantiles are read off a histogram of this many equal bins over [0, 1], so they are exact to one bin: 0.0001."""

_QUANTILES = (1, 5, 25, 50, 75, 95, 99)

# Sums are of whole numbers in units of 2^-64, which leaves every double above 0.0005 as it is: they come out the same
# in whatever order, and in however many shards, the scores are counted.
_UNIT_BITS = 64


def bin_of(score: float) -> int:
    """Return the bin of a score in [0, 1]: the last whose lower edge, bin / 10,000, it reaches; 1.0 is in the last."""
    index = int(score * BINS)
    # The product may be rounded to just below a whole number, or up to it.
    if index / BINS > score:
        index -= 1
    elif (index + 1) / BINS <= score:
        index += 1
    return min(index, BINS - 1)


class ScoreCount:
    """Counts scores one at a time, or those that another has counted."""

    def __init__(self) -> None:
        self.count = 0
        self._total = 0
        self._squares = 0
        self._minimum = math.inf
        self._maximum = -math.inf
        self._histogram: Counter[int] = Counter()

    @property
    def histogram(self) -> Mapping[int, int]:
        """How many scores are in each bin."""
        return self._histogram

    def add(self, score: float) -> None:
        """Count one score."""
        self.count += 1
        units = int(math.ldexp(score, _UNIT_BITS))
        self._total += units
        self._squares += units * units
        self._minimum = min(self._minimum, score)
        self._maximum = max(self._maximum, score)
        self._histogram[bin_of(score)] += 1

    def add_counted(self, scores: ScoreStatistics, sums: ScoreSums) -> None:
        """Count the scores that another has counted, as its :meth:`statistics` and :meth:`sums` say."""
        self.count += scores.count
        self._total += int(sums.total)
        self._squares += int(sums.squares)
        self._minimum = min(self._minimum, scores.minimum)
        self._maximum = max(self._maximum, scores.maximum)
        self._histogram.update(sums.histogram)

    def statistics(self) -> ScoreStatistics | None:
        """Return the statistics of the scores, or None if there are none."""
        if self.count == 0:
            return None
        variance = (self.count * self._squares - self._total**2) / (self.count << _UNIT_BITS) ** 2
        return ScoreStatistics(
            count=self.count,
            mean=round(self._total / (self.count << _UNIT_BITS), 7),
            standard_deviation=round(math.sqrt(variance), 7),
            minimum=self._minimum,
            maximum=self._maximum,
            quantiles={f"p{q:02d}": self._quantile(q / 100) for q in _QUANTILES},
        )

    def sums(self) -> ScoreSums:
        """Return what :meth:`add_counted` needs beside the statistics."""
        return ScoreSums(
            total=str(self._total), squares=str(self._squares), histogram=dict(sorted(self._histogram.items()))
        )

    def _quantile(self, fraction: float) -> float:
        """Return the middle of the bin that holds the score of this rank, kept within the extremes."""
        rank = max(1, math.ceil(fraction * self.count))
        seen = 0
        for index, count in sorted(self._histogram.items()):
            seen += count
            if seen >= rank:
                return min(max((index + 0.5) / BINS, self._minimum), self._maximum)
        return self._maximum
