"""Counts and statistics over results, in memory that does not grow with the rows."""

from __future__ import annotations

import math
from collections import Counter

from clip_operator.manifest import RowCounts, ScoreStatistics
from clip_operator.scoring.result import RowResult

# Quantiles are read off a histogram of this many equal bins over [0, 1], so they are exact to one bin: 0.0001.
_BINS = 10_000
_QUANTILES = (1, 5, 25, 50, 75, 95, 99)


class Tally:
    """Accumulates results one at a time."""

    def __init__(self) -> None:
        self.rows = 0
        self.failures: Counter[str] = Counter()
        self._truncated = 0
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0  # sum of squared distances from the running mean (Welford 1962)
        self._minimum = math.inf
        self._maximum = -math.inf
        self._histogram = [0] * _BINS

    def add(self, result: RowResult) -> None:
        """Count one row."""
        self.rows += 1
        if result.error is not None:
            self.failures[result.error.reason.value] += 1
        if result.score is None:
            return
        score = result.score
        self._truncated += result.truncated
        self._count += 1
        distance = score - self._mean
        self._mean += distance / self._count
        self._squares += distance * (score - self._mean)
        self._minimum = min(self._minimum, score)
        self._maximum = max(self._maximum, score)
        self._histogram[min(int(score * _BINS), _BINS - 1)] += 1

    @property
    def failed(self) -> int:
        """How many rows have no score."""
        return self.rows - self._count

    def row_counts(self, resumed: int = 0, truncated_texts: int = 0) -> RowCounts:
        """Return the counts as the manifest holds them.

        :param resumed: how many of the rows an earlier try or run had done.
        :param truncated_texts: how many texts were cut beside those of which the results say so.
        """
        return RowCounts(
            total=self.rows,
            scored=self._count,
            failed=self.failed,
            failures=dict(sorted(self.failures.items())),
            truncated_texts=truncated_texts + self._truncated,
            resumed=resumed,
        )

    def statistics(self) -> ScoreStatistics | None:
        """Return the statistics of the scores, or None if no row was scored."""
        if self._count == 0:
            return None
        return ScoreStatistics(
            count=self._count,
            mean=round(self._mean, 7),
            standard_deviation=round(math.sqrt(self._squares / self._count), 7),
            minimum=self._minimum,
            maximum=self._maximum,
            quantiles={f"p{q:02d}": self._quantile(q / 100) for q in _QUANTILES},
        )

    def _quantile(self, fraction: float) -> float:
        """Return the middle of the bin that holds the score of this rank, kept within the extremes."""
        rank = max(1, math.ceil(fraction * self._count))
        seen = 0
        for index, count in enumerate(self._histogram):
            seen += count
            if seen >= rank:
                return min(max((index + 0.5) / _BINS, self._minimum), self._maximum)
        return self._maximum
