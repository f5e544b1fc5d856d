"""Counts and statistics over results, in memory that does not grow with the rows."""

from __future__ import annotations

from collections import Counter

from clip_operator.proof.manifest import Calibration, RowCounts, ScoreStatistics, ScoreSums
from clip_operator.scoring.calibration import calibrate
from clip_operator.scoring.null_distribution import NullDistribution
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.score_count import ScoreCount


class Tally:
    """Accumulates results one at a time, or those that other tallies have counted."""

    def __init__(self) -> None:
        self.rows = 0
        self.failures: Counter[str] = Counter()
        self.truncated = 0
        self._scores = ScoreCount()
        self._mismatched = ScoreCount()
        self._earlier: Calibration | None = None

    def add(self, result: RowResult) -> None:
        """Count one row."""
        self.rows += 1
        if result.error is not None:
            self.failures[result.error.reason.value] += 1
        if result.score is None:
            return
        self.truncated += result.truncated
        self._scores.add(result.score)
        if result.mismatched is not None:
            self._mismatched.add(result.mismatched)

    def add_counted(
        self,
        rows: RowCounts,
        scores: ScoreStatistics | None,
        sums: ScoreSums,
        mismatched: ScoreStatistics | None = None,
    ) -> None:
        """Count the rows that another tally has counted, as its :meth:`row_counts`, :meth:`statistics`, :meth:`sums`
        and, of the mismatched pairs, :meth:`calibration` say.
        """
        self.rows += rows.total
        self.failures.update(rows.failures)
        self.truncated += rows.truncated_texts
        if scores is not None:
            self._scores.add_counted(scores, sums)
        if mismatched is not None and sums.mismatched is not None:
            self._mismatched.add_counted(mismatched, sums.mismatched)

    def fall_back_on(self, calibration: Calibration | None) -> None:
        """Let the calibration of an earlier output stand as long as fewer mismatched pairs come than it was made of.

        Scores that are taken over from a step file do not say what their rows' mismatched pairs scored, and what the
        few other rows say must not take the place of what all have said.
        """
        self._earlier = calibration

    @property
    def failed(self) -> int:
        """How many rows have no score."""
        return self.rows - self._scores.count

    def row_counts(self, resumed: int = 0, reused: int = 0, truncated_texts: int = 0) -> RowCounts:
        """Return the counts as the manifest holds them.

        :param resumed: how many of the rows an earlier try or run had done.
        :param reused: how many had their score in the score store.
        :param truncated_texts: how many texts were cut beside those of which the results say so.
        """
        return RowCounts(
            total=self.rows,
            scored=self._scores.count,
            failed=self.failed,
            failures=dict(sorted(self.failures.items())),
            truncated_texts=truncated_texts + self.truncated,
            resumed=resumed,
            reused=reused,
        )

    def statistics(self) -> ScoreStatistics | None:
        """Return the statistics of the scores, or None if no row was scored."""
        return self._scores.statistics()

    def calibration(self) -> Calibration | None:
        """Return what the scores say beside those of mismatched pairs, or None if there are no such pairs."""
        if earlier := self._better_earlier():
            return earlier
        mismatched = self._mismatched.statistics()
        if mismatched is None or not self._scores.count:
            return None
        return calibrate(self._scores.histogram, self._mismatched.histogram, mismatched)

    def null_distribution(self) -> NullDistribution | None:
        """Return the distribution of the mismatched pairs' scores, or None if there are no such pairs."""
        if earlier := self._better_earlier():
            return NullDistribution.of_bars(earlier.histograms)
        return NullDistribution.of_bins(self._mismatched.histogram) if self._mismatched.count else None

    def sums(self) -> ScoreSums:
        """Return what :meth:`add_counted` needs beside the counts and the statistics."""
        mismatched = self._mismatched.sums() if self._mismatched.count else None
        return self._scores.sums().model_copy(update={"mismatched": mismatched})

    def _better_earlier(self) -> Calibration | None:
        """Return the calibration of the earlier output if it was made of more pairs than were counted."""
        earlier = self._earlier
        return earlier if earlier is not None and earlier.mismatched.count > self._mismatched.count else None
