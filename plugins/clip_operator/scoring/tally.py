"""Counts and statistics over results, in memory that does not grow with the rows."""

from __future__ import annotations

from collections import Counter

import numpy as np

from clip_operator.proof.manifest import Calibration, GroupedCounts, RowCounts, ScoreStatistics, ScoreSums
from clip_operator.scoring.calibration import calibrate
from clip_operator.scoring.clusters import DistinctImages, group_of
from clip_operator.scoring.histogram import GroupedHistogram, bins_of
from clip_operator.scoring.mismatched import PairedRows
from clip_operator.scoring.null_distribution import NullDistribution
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.score_count import ScoreCount


class Tally:
    """Accumulates results one at a time and their pairs as they come to be known, or what others have counted."""

    def __init__(self) -> None:
        self.rows = 0
        self.failures: Counter[str] = Counter()
        self.truncated = 0
        self.unturned = 0
        self._scores = ScoreCount()
        self._matched = GroupedHistogram()
        self._mismatched = GroupedHistogram()
        self._images = DistinctImages()

    def add(self, result: RowResult) -> None:
        """Count one row."""
        self.rows += 1
        if result.error is not None:
            self.failures[result.error.reason.value] += 1
        if result.score is None:
            return
        self.truncated += result.truncated
        self.unturned += result.unturned
        self._scores.add(result.score)

    def add_pairs(self, paired: PairedRows) -> None:
        """Count what rows that were added score beside their mismatched pairs."""
        scored = ~np.isnan(paired.scores)
        images = paired.images[scored]
        self._images.add(images)
        self._matched.add(bins_of(paired.scores[scored]), group_of(images))
        bins, of_image, of_text = paired.mismatched()
        self._mismatched.add(bins, of_image)
        apart = of_image != of_text
        self._mismatched.touch(bins[apart], of_text[apart])

    def add_counted(
        self, rows: RowCounts, scores: ScoreStatistics | None, sums: ScoreSums, mismatched: GroupedCounts
    ) -> None:
        """Count the rows that another tally has counted, as its :meth:`row_counts`, :meth:`statistics`, :meth:`sums`
        and :meth:`mismatched` say.
        """
        self.rows += rows.total
        self.failures.update(rows.failures)
        self.truncated += rows.truncated_texts
        self.unturned += rows.unturned_images
        if scores is not None:
            self._scores.add_counted(scores, int(sums.total), int(sums.squares))
        self._matched.add_counted(sums.matched)
        self._images.add(np.array(sums.images, np.int64))
        self.add_mismatched(mismatched)

    def add_mismatched(self, mismatched: GroupedCounts) -> None:
        """Count mismatched pairs of rows that bring none along: those of an output whose scores are taken over."""
        self._mismatched.add_counted(mismatched)

    @property
    def failed(self) -> int:
        """How many rows have no score."""
        return self.rows - self._scores.count

    def row_counts(
        self, resumed: int = 0, reused: int = 0, truncated_texts: int = 0, unturned_images: int = 0
    ) -> RowCounts:
        """Return the counts as the manifest holds them.

        :param resumed: how many of the rows an earlier try or run had done.
        :param reused: how many had their score in the score store.
        :param truncated_texts: how many texts were cut beside those of which the results say so.
        :param unturned_images: how many images were not turned, likewise.
        """
        return RowCounts(
            total=self.rows,
            scored=self._scores.count,
            failed=self.failed,
            failures=dict(sorted(self.failures.items())),
            truncated_texts=truncated_texts + self.truncated,
            unturned_images=unturned_images + self.unturned,
            resumed=resumed,
            reused=reused,
        )

    def statistics(self) -> ScoreStatistics | None:
        """Return the statistics of the scores, or None if no row was scored."""
        return self._scores.statistics(self._matched.total)

    def calibration(self) -> Calibration | None:
        """Return what the scores say beside those of mismatched pairs, or None if there are no such pairs."""
        if not self._scores.count or not self._mismatched.folds.any():
            return None
        return calibrate(self._matched, self._mismatched, self._images.count())

    def null_distribution(self) -> NullDistribution | None:
        """Return the distribution of the mismatched pairs' scores, or None if there are no such pairs."""
        counts = self._mismatched.total
        return NullDistribution.of_counts(counts) if counts.any() else None

    def mismatched(self) -> GroupedCounts:
        """Return what :meth:`add_mismatched` needs to know of the mismatched pairs."""
        return self._mismatched.counted()

    def sums(self) -> ScoreSums:
        """Return what :meth:`add_counted` needs beside the counts, the statistics and the mismatched pairs."""
        return ScoreSums(
            total=str(self._scores.total),
            squares=str(self._scores.squares),
            matched=self._matched.counted(),
            images=self._images.least,
        )
