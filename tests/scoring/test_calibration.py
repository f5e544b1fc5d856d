"""What scores say beside those of mismatched pairs: as counting every pair of rows, and trying every cut, finds it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.proof.manifest import GROUPS, Calibration
from clip_operator.scoring import PairedRows, RowResult, Tally
from clip_operator.scoring.mismatched import PARTNERS

# Scores as they come, and also those that stand on an edge of a bin, where the last bit decides.
SCORE = st.one_of(
    st.floats(0, 1, width=32).map(lambda score: round(score, 7)),
    st.integers(0, 10_000).map(lambda edge: edge / 10_000),
    st.integers(5_700, 5_720).map(lambda edge: edge / 10_000),
)
SCORES = st.lists(SCORE, min_size=1, max_size=40)


def paired(matched: list[float | None], mismatched: list[float], images: Sequence[int] = (0,)) -> PairedRows:
    """Return rows that have these scores, and among them as many pairs as there are mismatched scores.

    :param images: the hashes of the images; the first rows have these in turn. By default all share one.
    """
    rows = max(len(matched), 1)
    codes = np.full((rows, PARTNERS), 0xFFFFFF, np.uint32)
    hashes = np.resize(np.array(images, np.int64), rows)
    assert len(mismatched) <= codes.size, "there are not so many partners"
    for number, score in enumerate(mismatched):
        codes[number % rows, number // rows] = in_bin(score) | int(hashes[number % rows] % GROUPS) << 14
    scores = np.array([math.nan if score is None else score for score in matched])
    return PairedRows(hashes, scores, codes)


def tallied(matched: list[float], mismatched: list[float], images: Sequence[int] = (0,)) -> Tally:
    """Count rows that have these scores, and pairs that have these mismatched ones, each at least one."""
    tally = Tally()
    rows = even(matched, mismatched)
    for score in rows:
        tally.add(RowResult(score))
    tally.add_pairs(paired([*rows], mismatched, images))
    return tally


def calibrated(matched: list[float], mismatched: list[float]) -> Calibration:
    calibration = tallied(matched, mismatched).calibration()
    assert calibration is not None
    return calibration


def even(matched: list[float], mismatched: list[float]) -> list[float]:
    """Return as many matched scores as are counted: there is one at least for every mismatched pair."""
    return matched + matched[-1:] * (len(mismatched) - len(matched))


def in_bin(score: float) -> int:
    edges = range(max(0, int(score * 10_000) - 1), min(10_000, int(score * 10_000) + 2))
    return max(edge for edge in edges if edge / 10_000 <= score)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(matched=SCORES, mismatched=SCORES)
def test_the_auc_is_the_share_of_all_pairs_in_which_the_row_scores_higher(
    matched: list[float], mismatched: list[float]
) -> None:
    """Counted one by one; scores of the same 0.0001 are a tie."""
    rows = [in_bin(score) for score in even(matched, mismatched)]
    pairs = [in_bin(score) for score in mismatched]
    wins = sum((row > pair) + (row == pair) / 2 for row in rows for pair in pairs)
    assert calibrated(matched, mismatched).auc == pytest.approx(wins / len(rows) / len(pairs), abs=1e-7)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(matched=SCORES, mismatched=SCORES)
def test_no_cut_tells_rows_from_mismatched_pairs_better_than_the_threshold(
    matched: list[float], mismatched: list[float]
) -> None:
    """Of all ten thousand; and where there is but one image, its two error rates are those of the scores themselves."""
    rows = even(matched, mismatched)
    found = calibrated(matched, mismatched)

    def youden(cut: float) -> float:
        accepted = sum(score >= cut for score in rows) / len(rows)
        return round(accepted - sum(score >= cut for score in mismatched) / len(mismatched), 9)

    assert youden(found.threshold) == max(youden(edge / 10_000) for edge in range(10_000))
    assert found.false_accept_rate == pytest.approx(
        sum(score >= found.threshold for score in mismatched) / len(mismatched), abs=1e-7
    )
    assert found.false_reject_rate == pytest.approx(sum(s < found.threshold for s in rows) / len(rows), abs=1e-7)
    if youden(found.threshold) == 0:
        assert found.threshold <= min(rows + mismatched)
        return
    plateaus = groupby(range(10_000), key=lambda edge: youden(edge / 10_000))
    best = next(list(edges) for value, edges in plateaus if value == youden(found.threshold))
    assert found.threshold == pytest.approx((best[0] + best[-1]) / 2 / 10_000, abs=1e-4)


def test_the_threshold_lies_in_the_middle_of_a_gap() -> None:
    found = calibrated([0.62, 0.6, 0.64], [0.5, 0.51, 0.4])
    assert found.threshold == pytest.approx(0.555, abs=1e-4)
    assert (found.auc, found.false_accept_rate, found.false_reject_rate) == (1, 0, 0)


def test_where_scores_tell_nothing_the_threshold_keeps_every_row() -> None:
    for found in (calibrated([0.4, 0.5], [0.6, 0.7]), calibrated([0.5], [0.5])):
        assert found.auc <= 0.5
        assert (found.false_accept_rate, found.false_reject_rate) == (1, 0)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(matched=SCORES, mismatched=SCORES)
def test_the_histograms_count_every_score_in_at_most_sixty_bars(matched: list[float], mismatched: list[float]) -> None:
    rows, shown = even(matched, mismatched), calibrated(matched, mismatched).histograms
    assert len(shown.matched) == len(shown.mismatched) <= 60
    mantissa = shown.bin_width / 10 ** math.floor(math.log10(shown.bin_width) + 1e-9)
    assert round(mantissa, 6) in (1, 2, 5)
    for scores, bars in ((rows, shown.matched), (mismatched, shown.mismatched)):
        expected = [0] * len(bars)
        for score in scores:
            expected[int((in_bin(score) / 10_000 - shown.start) / shown.bin_width + 1e-6)] += 1
        assert bars == expected


@settings(derandomize=True, deadline=None, max_examples=200)
@given(mismatched=SCORES, score=SCORE)
def test_the_percentile_is_the_share_of_mismatched_pairs_that_score_lower(
    mismatched: list[float], score: float
) -> None:
    null = tallied([0.5], mismatched).null_distribution()
    assert null is not None
    here, pairs = in_bin(score), [in_bin(each) for each in mismatched]
    lower = sum((pair < here) + (pair == here) / 2 for pair in pairs)
    assert null.percentile(score) == pytest.approx(100 * lower / len(pairs), abs=1e-4)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(rows=st.lists(st.tuples(SCORE, SCORE, st.integers(0, 200)), min_size=1, max_size=60))
def test_every_figure_is_within_its_interval_and_that_within_what_is_possible(
    rows: list[tuple[float, float, int]],
) -> None:
    matched, mismatched, images = zip(*rows, strict=True)
    found = tallied([*matched], [*mismatched], images).calibration()
    assert found is not None
    assert found.images == len(set(images))
    for value, (low, high) in (
        (found.auc, found.auc_interval),
        (found.false_accept_rate, found.false_accept_interval),
        (found.false_reject_rate, found.false_reject_interval),
    ):
        assert 0 <= low <= value + 1e-4
        assert value - 1e-4 <= high <= 1


def test_rates_are_worse_than_those_of_the_scores_that_the_threshold_was_chosen_on() -> None:
    """By half of what a threshold loses from the fold that it was chosen on to the other."""
    # images of even hashes are told apart at 0.5 without an error, and of odd ones two rows score less than that
    matched, mismatched = [0.6, 0.6, 0.6, 0.45, 0.6, 0.45], [0.4] * 6
    found = tallied(matched, mismatched, images=[0, 1, 2, 3, 4, 5]).calibration()
    assert found is not None
    assert found.threshold == pytest.approx(0.425, abs=1e-4)
    assert found.false_accept_rate == 0
    assert found.false_reject_rate == pytest.approx(2 / 3 / 4)


def test_the_same_image_again_and_again_makes_nothing_more_certain() -> None:
    drawn = random.Random(7)
    rows = [(drawn.gauss(0.6, 0.05), drawn.gauss(0.5, 0.05), number) for number in range(120)]
    once = tallied([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]).calibration()
    copies = [row for row in rows for _ in range(5)]
    often = tallied([row[0] for row in copies], [row[1] for row in copies], [row[2] for row in copies]).calibration()
    assert once is not None
    assert often is not None
    assert (often.auc, often.threshold, often.images) == (once.auc, once.threshold, 120)
    assert often.auc_interval == pytest.approx(once.auc_interval, abs=1e-4)
    for other, one in zip(often.false_reject_interval, once.false_reject_interval, strict=True):
        assert other == pytest.approx(one, abs=0.03)


def test_without_mismatched_pairs_there_is_no_calibration() -> None:
    tally = Tally()
    tally.add(RowResult(0.5))
    tally.add_pairs(paired([0.5], []))
    assert (tally.calibration(), tally.null_distribution()) == (None, None)


@pytest.mark.parametrize(("highest", "bars"), [(0.5059, 60), (0.506, 31), (0.9999, 50)])
def test_bars_are_as_narrow_as_sixty_of_them_allow(highest: float, bars: int) -> None:
    assert len(calibrated([highest], [0.5]).histograms.matched) == bars
