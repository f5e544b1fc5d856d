"""How the scores of mismatched pairs are distributed: what a score is measured by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clip_operator.proof.manifest import Histograms
from clip_operator.scoring.score_count import BINS, bin_of


@dataclass(frozen=True, eq=False, slots=True)
class NullDistribution:
    """The scores of mismatched pairs: what a row would score if its image and text had nothing to do with each other.

    :param percentiles: float64 [10,000], for the scores of each bin of 0.0001.
    """

    percentiles: NDArray[np.float64]

    @classmethod
    def of_bins(cls, histogram: Mapping[int, int]) -> Self:
        """Return the distribution of pairs of which so many are in each of the 10,000 bins; at least one."""
        counts = np.zeros(BINS)
        counts[list(histogram.keys())] = list(histogram.values())
        return cls._of_counts(counts)

    @classmethod
    def of_bars(cls, histograms: Histograms) -> Self:
        """Return the distribution that a manifest's histogram shows: within each of its bins, as if all scores were
        equally frequent.
        """
        width, first = round(histograms.bin_width * BINS), round(histograms.start * BINS)
        spread = np.repeat(np.array(histograms.mismatched) / width, width)
        counts = np.zeros(BINS)
        counts[first : first + len(spread)] = spread[: BINS - first]
        return cls._of_counts(counts)

    @classmethod
    def _of_counts(cls, counts: NDArray[np.float64]) -> Self:
        through = np.cumsum(counts)
        return cls(np.round(100 * (through - counts / 2) / through[-1], 4))

    def percentile(self, score: float) -> float:
        """Return the share of the pairs that score lower, those of the same bin counting half, in percent.

        :param score: in [0, 1].
        """
        return float(self.percentiles[bin_of(score)])
