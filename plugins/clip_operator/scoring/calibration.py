"""What scores say, read off two histograms: that of the rows and that of mismatched pairs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from clip_operator.proof.manifest import BINS, COARSE_BINS, Calibration, Histograms, Interval
from clip_operator.scoring.histogram import GroupedHistogram, binned_statistics
from clip_operator.scoring.intervals import jackknife_variance, logit_interval, wilson_interval

# As many bars as a page shows side by side.
_MOST_BARS = 60

# In bins of the fine histogram: 0.0001 to 0.05.
_BAR_WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def calibrate(matched: GroupedHistogram, mismatched: GroupedHistogram, images: int) -> Calibration:
    """Return the calibration of a model on a data set.

    AUC and threshold are exact on the histograms' bins of 0.0001. A rate at the threshold is what is counted there,
    and half of what a rate gets worse from the fold that a threshold was chosen on to the other fold: a threshold looks
    better on what it was chosen on than it is, and on twice as many scores half as much so.

    :param matched: the rows' scores; at least one.
    :param mismatched: the scores of mismatched pairs; at least one.
    :param images: how many different ones the rows have.
    """
    rows, pairs = _filled(matched.total), _filled(mismatched.total)
    auc, cut = _auc(rows, pairs), _best_cut(rows, pairs)
    rejects, accepts = _rates(rows, pairs, cut)
    more_rejects, more_accepts = _optimism(matched, mismatched)
    likely_rejects = min(max(rejects + more_rejects, 0.0), 1.0)
    likely_accepts = min(max(accepts + more_accepts, 0.0), 1.0)
    return Calibration(
        mismatched=binned_statistics(mismatched.total),
        images=images,
        auc=round(auc, 7),
        auc_interval=_rounded(_auc_interval(auc, matched, mismatched, images)),
        threshold=cut / BINS,
        false_accept_rate=round(likely_accepts, 7),
        false_accept_interval=_rounded(_rate_interval(accepts, likely_accepts, mismatched, cut, images)),
        false_reject_rate=round(likely_rejects, 7),
        false_reject_interval=_rounded(_rate_interval(rejects, likely_rejects, matched, cut, images)),
        histograms=_bars(rows, pairs),
    )


def _auc(matched: Mapping[int, int], mismatched: Mapping[int, int]) -> float:
    """Return the area under the ROC curve, as Mann and Whitney count it: ties, here the pairs of one bin, are half."""
    wins = below = 0  # wins count twice, so that they are whole numbers
    for index in sorted(matched.keys() | mismatched.keys()):
        here = mismatched.get(index, 0)
        wins += matched.get(index, 0) * (2 * below + here)
        below += here
    return wins / (2 * sum(matched.values()) * below)


def _rates(matched: Mapping[int, int], mismatched: Mapping[int, int], cut: int) -> tuple[float, float]:
    """Return which share of the rows is below the cut, and which share of the mismatched pairs is not."""
    rejected = sum(count for index, count in matched.items() if index < cut)
    accepted = sum(count for index, count in mismatched.items() if index >= cut)
    return rejected / sum(matched.values()), accepted / sum(mismatched.values())


def _optimism(matched: GroupedHistogram, mismatched: GroupedHistogram) -> tuple[float, float]:
    """Return how much too low the two rates are at a threshold that was chosen on the same scores."""
    folds = [(_filled(rows), _filled(pairs)) for rows, pairs in zip(matched.folds, mismatched.folds, strict=True)]
    if not all(rows and pairs for rows, pairs in folds):
        return 0.0, 0.0
    rejects = accepts = 0.0
    for own, other in (folds, folds[::-1]):
        cut = _best_cut(*own)
        (own_rejects, own_accepts), (other_rejects, other_accepts) = _rates(*own, cut), _rates(*other, cut)
        rejects += other_rejects - own_rejects
        accepts += other_accepts - own_accepts
    return rejects / (2 * len(folds)), accepts / (2 * len(folds))


def _auc_interval(auc: float, matched: GroupedHistogram, mismatched: GroupedHistogram, images: int) -> Interval:
    rows, pairs = _coarse(matched), _coarse(mismatched)
    there = matched.groups.any(axis=1)
    others, their_pairs = rows - matched.groups[there], pairs - mismatched.groups[there]
    ways = 2 * others.sum(axis=1) * their_pairs.sum(axis=1)
    wins = (others * (2 * np.cumsum(their_pairs, axis=1) - their_pairs)).sum(axis=1, dtype=float)
    without = np.where(ways > 0, wins / np.maximum(ways, 1), auc)
    sizes = matched.groups[there].sum(axis=1).astype(float)
    return logit_interval(auc, jackknife_variance(auc, without, sizes), len(sizes), images)


def _rate_interval(counted: float, likely: float, scores: GroupedHistogram, cut: int, images: int) -> Interval:
    """Return the interval of a rate at the threshold.

    It reaches from the lower end for the rate as it was counted to the upper end for the likely one, because by how
    much a threshold is too good is itself uncertain. The scores count as so many independent ones as their variance
    says, and at least as many as there are images.

    :param scores: those that are on the wrong side of the cut, and the others: rows or mismatched pairs.
    """
    coarse, edge = _coarse(scores), round(cut / (BINS / COARSE_BINS))
    there = scores.groups.any(axis=1)
    below = coarse[:edge].sum() - scores.groups[there, :edge].sum(axis=1)
    others = coarse.sum() - scores.groups[there].sum(axis=1)
    share = float(coarse[:edge].sum() / coarse.sum())
    without = np.where(others > 0, below / np.maximum(others, 1), share)
    variance = jackknife_variance(share, without, scores.groups[there].sum(axis=1).astype(float))
    observations = images if variance == 0 else max(images, min(share * (1 - share) / variance, int(coarse.sum())))
    return (
        wilson_interval(min(counted, likely), observations)[0],
        wilson_interval(max(counted, likely), observations)[1],
    )


def _coarse(scores: GroupedHistogram) -> NDArray[np.int64]:
    """Return how many scores are in each bin of 0.001: int64 [1,000]."""
    return np.asarray(scores.total.reshape(COARSE_BINS, -1).sum(axis=1))


def _filled(counts: NDArray[np.int64]) -> dict[int, int]:
    """Return the bins in which there are any."""
    return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}


def _rounded(interval: Interval) -> Interval:
    return round(interval[0], 4), round(interval[1], 4)


def _best_cut(matched: Mapping[int, int], mismatched: Mapping[int, int]) -> int:
    """Return the first bin of those that are accepted where true minus false accept rate is greatest (Youden's J).

    All cuts between two scores are as good; it is the middle one. Of cuts that are as good and have worse ones between
    them it is among the lowest, which keep most rows; where no cut tells anything, it accepts all.
    """
    rows, pairs = sum(matched.values()), sum(mismatched.values())
    bins = sorted(matched.keys() | mismatched.keys())
    best = gain = 0  # J, times rows and pairs, so that it is a whole number
    low, high = 0, bins[0]
    for index, following in pairwise(bins):
        gain += mismatched.get(index, 0) * rows - matched.get(index, 0) * pairs
        if gain > best:
            best, low, high = gain, index + 1, following
        elif gain == best > 0 and high == index:
            high = following
    return (low + high) // 2


def _bars(matched: Mapping[int, int], mismatched: Mapping[int, int]) -> Histograms:
    """Return both histograms in the finest bins, of a width of 1, 2 or 5 times a power of ten, that are few enough."""
    bins = matched.keys() | mismatched.keys()
    low, high = min(bins), max(bins)
    width = next(width for width in _BAR_WIDTHS if high // width - low // width < _MOST_BARS)
    first = low // width

    def counts(fine: Mapping[int, int]) -> list[int]:
        bars = [0] * (high // width - first + 1)
        for index, count in fine.items():
            bars[index // width - first] += count
        return bars

    return Histograms(
        start=first * width / BINS, bin_width=width / BINS, matched=counts(matched), mismatched=counts(mismatched)
    )
