"""Counts and statistics over results, in memory that does not grow with the rows."""

from __future__ import annotations

import math
from collections import Counter

from clip_operator.manifest import RowCounts, ScoreStatistics, ScoreSums
from clip_operator.scoring.result import RowResult

# Quantiles are read off a histogram of this many equal bins over [0, 1], so they are exact to one bin: 0.0001.
_BINS = 10_000
_QUANTILES = (1, 5, 25, 50, 75, 95, 99)

# Sums are of whole numbers in units of 2^-64, which leaves every double above 0.0005 as it is: they come out the same
# in whatever order, and in however many shards, the rows are counted.
_UNIT_BITS = 64


class Tally:
    """Accumulates results one at a time, or those that other tallies have counted."""

    def __init__(self) -> None:
        self.rows = 0
        self.failures: Counter[str] = Counter()
        self.truncated = 0
        self._count = 0
        self._total = 0
        self._squares = 0
        self._minimum = math.inf
        self._maximum = -math.inf
        self._histogram: Counter[int] = Counter()

    def add(self, result: RowResult) -> None:
        """Count one row."""
        self.rows += 1
        if result.error is not None:
            self.failures[result.error.reason.value] += 1
        if result.score is None:
            return
        score = result.score
        self.truncated += result.truncated
        self._count += 1
        units = int(math.ldexp(score, _UNIT_BITS))
        self._total += units
        self._squares += units * units
        self._minimum = min(self._minimum, score)
        self._maximum = max(self._maximum, score)
        self._histogram[min(int(score * _BINS), _BINS - 1)] += 1

    def add_counted(self, rows: RowCounts, scores: ScoreStatistics | None, sums: ScoreSums) -> None:
        """Count the rows that another tally has counted, as its :meth:`row_counts`, :meth:`statistics` and
        :meth:`sums` say.
        """
        self.rows += rows.total
        self.failures.update(rows.failures)
        self.truncated += rows.truncated_texts
        if scores is None:
            return
        self._count += scores.count
        self._total += int(sums.total)
        self._squares += int(sums.squares)
        self._minimum = min(self._minimum, scores.minimum)
        self._maximum = max(self._maximum, scores.maximum)
        self._histogram.update(sums.histogram)

    @property
    def failed(self) -> int:
        """How many rows have no score."""
        return self.rows - self._count

    def row_counts(self, resumed: int = 0, reused: int = 0, truncated_texts: int = 0) -> RowCounts:
        """Return the counts as the manifest holds them.

        :param resumed: how many of the rows an earlier try or run had done.
        :param reused: how many had their score in the score store.
        :param truncated_texts: how many texts were cut beside those of which the results say so.
        """
        return RowCounts(
            total=self.rows,
            scored=self._count,
            failed=self.failed,
            failures=dict(sorted(self.failures.items())),
            truncated_texts=truncated_texts + self.truncated,
            resumed=resumed,
            reused=reused,
        )

    def statistics(self) -> ScoreStatistics | None:
        """Return the statistics of the scores, or None if no row was scored."""
        if self._count == 0:
            return None
        variance = (self._count * self._squares - self._total**2) / (self._count << _UNIT_BITS) ** 2
        return ScoreStatistics(
            count=self._count,
            mean=round(self._total / (self._count << _UNIT_BITS), 7),
            standard_deviation=round(math.sqrt(variance), 7),
            minimum=self._minimum,
            maximum=self._maximum,
            quantiles={f"p{q:02d}": self._quantile(q / 100) for q in _QUANTILES},
        )

    def sums(self) -> ScoreSums:
        """Return what :meth:`add_counted` needs beside the counts and the statistics."""
        return ScoreSums(
            total=str(self._total), squares=str(self._squares), histogram=dict(sorted(self._histogram.items()))
        )

    def _quantile(self, fraction: float) -> float:
        """Return the middle of the bin that holds the score of this rank, kept within the extremes."""
        rank = max(1, math.ceil(fraction * self._count))
        seen = 0
        for index, count in sorted(self._histogram.items()):
            seen += count
            if seen >= rank:
                return min(max((index + 0.5) / _BINS, self._minimum), self._maximum)
        return self._maximum
