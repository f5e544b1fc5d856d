"""How the scores of mismatched pairs are distributed: what a score is measured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clip_operator.scoring.histogram import bin_of


@dataclass(frozen=True, eq=False, slots=True)
class NullDistribution:
    """The scores of mismatched pairs: what a row would score if its image and text had nothing to do with each other.

    :param percentiles: float64 [10,000], for the scores of each bin of 0.0001.
    """

    percentiles: NDArray[np.float64]

    @classmethod
    def of_counts(cls, counts: NDArray[np.int64]) -> Self:
        """Return the distribution of pairs of which so many are in each bin, at least one in all: int64 [10,000]."""
        through = np.cumsum(counts)
        return cls(np.round(100 * (through - counts / 2) / through[-1], 4))

    def percentile(self, score: float) -> float:
        """Return the share of the pairs that score lower, those of the same bin counting half, in percent.

        :param score: in [0, 1].
        """
        return float(self.percentiles[bin_of(score)])
