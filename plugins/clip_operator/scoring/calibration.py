"""What scores say, read off two histograms: that of the rows and that of mismatched pairs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from clip_operator.proof.manifest import Calibration, Histograms, ScoreStatistics
from clip_operator.scoring.score_count import BINS

# As many bars as a page shows side by side.
_MOST_BARS = 60

# In bins of the fine histogram: 0.0001 to 0.05.
_BAR_WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def calibrate(matched: Mapping[int, int], mismatched: Mapping[int, int], scores: ScoreStatistics) -> Calibration:
    """Return the calibration of a model on a data set. All of it is exact on the histograms' bins of 0.0001.

    :param matched: how many rows score in each bin; at least one.
    :param mismatched: the same of mismatched pairs; at least one.
    :param scores: the statistics of the mismatched pairs.
    """
    cut = _best_cut(matched, mismatched)
    accepted = sum(count for index, count in mismatched.items() if index >= cut)
    rejected = sum(count for index, count in matched.items() if index < cut)
    return Calibration(
        mismatched=scores,
        auc=_auc(matched, mismatched),
        threshold=cut / BINS,
        false_accept_rate=round(accepted / sum(mismatched.values()), 7),
        false_reject_rate=round(rejected / sum(matched.values()), 7),
        histograms=_bars(matched, mismatched),
    )


def describe_calibration(calibration: Calibration) -> str:
    """Return what a calibration says, as one line of a log."""
    return (
        f"Beside {calibration.mismatched.count:,} mismatched pairs, the AUC is {calibration.auc:.4f}; at the threshold "
        f"{calibration.threshold:.4f}, {_percent(calibration.false_accept_rate)} of the pairs would be accepted and "
        f"{_percent(calibration.false_reject_rate)} of the rows rejected"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _auc(matched: Mapping[int, int], mismatched: Mapping[int, int]) -> float:
    """Return the area under the ROC curve, as Mann and Whitney count it: ties, here the pairs of one bin, are half."""
    wins = below = 0  # wins count twice, so that they are whole numbers
    for index in sorted(matched.keys() | mismatched.keys()):
        here = mismatched.get(index, 0)
        wins += matched.get(index, 0) * (2 * below + here)
        below += here
    return round(wins / (2 * sum(matched.values()) * below), 7)


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
