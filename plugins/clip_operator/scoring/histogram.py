"""Histograms of scores, whole and in parts, in memory that does not grow with the scores."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from clip_operator.proof.manifest import BINS, COARSE_BINS, FOLDS, GROUPS, GroupedCounts, ScoreStatistics

_QUANTILES = (1, 5, 25, 50, 75, 95, 99)


def bin_of(score: float) -> int:
    """Return the bin of a score in [0, 1]: the last whose lower edge, bin / 10,000, it reaches; 1.0 is in the last."""
    return int(bins_of(np.array(score)))


def bins_of(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return :func:`bin_of` each score: int64, of the same shape."""
    bins = (scores * BINS).astype(np.int64)
    # The product may be rounded to just below a whole number, or up to it.
    bins -= bins / BINS > scores
    bins += (bins + 1) / BINS <= scores
    return np.minimum(bins, BINS - 1)


def quantiles(counts: NDArray[np.int64]) -> dict[str, float]:
    """Return the quantiles that a manifest names: each the middle of the bin that holds the score of this rank.

    :param counts: how many scores are in each bin, at least one in all: int64 [10,000].
    """
    ranks = np.cumsum(counts)
    wanted = np.maximum(1, np.ceil(np.array(_QUANTILES) / 100 * ranks[-1]))
    bins = np.searchsorted(ranks, wanted)
    return {f"p{q:02d}": (int(index) + 0.5) / BINS for q, index in zip(_QUANTILES, bins, strict=True)}


def binned_statistics(counts: NDArray[np.int64]) -> ScoreStatistics:
    """Return the statistics of scores of which only the bins are known, as if each was in the middle of its own.

    :param counts: how many are in each bin, at least one in all: int64 [10,000].
    """
    middles = (np.arange(BINS) + 0.5) / BINS
    there, total = np.flatnonzero(counts), int(counts.sum())
    mean = float(counts @ middles) / total
    return ScoreStatistics(
        count=total,
        mean=round(mean, 7),
        standard_deviation=round(math.sqrt(float(counts @ (middles - mean) ** 2) / total), 7),
        minimum=float(middles[there[0]]),
        maximum=float(middles[there[-1]]),
        quantiles=quantiles(counts),
    )


class GroupedHistogram:
    """Counts scores by their bins, in all and by the group that their image is in.

    A group is a 32nd of the images and a fold a half, so that statistics can tell how much would be another with other
    images. Groups are counted in bins of 0.001, which is enough for how uncertain something is.
    """

    def __init__(self) -> None:
        self.folds: NDArray[np.int64] = np.zeros((FOLDS, BINS), np.int64)
        """int64 [2, 10,000]: of the images of even groups, and of odd ones."""
        self.groups: NDArray[np.int64] = np.zeros((GROUPS, COARSE_BINS), np.int64)
        """int64 [32, 1,000]."""

    @property
    def total(self) -> NDArray[np.int64]:
        """How many scores are in each bin: int64 [10,000]."""
        return np.asarray(self.folds.sum(axis=0))

    def add(self, bins: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
        """Count scores.

        :param bins: int64 [scores].
        :param groups: of their images: int64 [scores].
        """
        self.folds += np.bincount(groups % FOLDS * BINS + bins, minlength=FOLDS * BINS).reshape(FOLDS, BINS)
        self.touch(bins, groups)

    def touch(self, bins: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
        """Count scores that were added already for further groups, without which they would not be there either."""
        flat = groups * COARSE_BINS + bins // (BINS // COARSE_BINS)
        self.groups += np.bincount(flat, minlength=GROUPS * COARSE_BINS).reshape(GROUPS, COARSE_BINS)

    def add_counted(self, counted: GroupedCounts) -> None:
        """Count the scores of which another's :meth:`counted` tells."""
        counts = np.frombuffer(zlib.decompress(counted), "<i8")
        self.folds += counts[: self.folds.size].reshape(self.folds.shape)
        self.groups += counts[self.folds.size :].reshape(self.groups.shape)

    def counted(self) -> GroupedCounts:
        """Return all that was counted."""
        return zlib.compress(np.concatenate([self.folds.ravel(), self.groups.ravel()]).astype("<i8").tobytes())
