"""Intervals are those of the textbooks, and the jackknife that of a mean."""

from __future__ import annotations

import math
from statistics import variance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.scoring.intervals import jackknife_variance, logit_interval, wilson_interval


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40))
def test_of_a_mean_the_jackknife_gives_the_variance_that_everybody_knows(values: list[float]) -> None:
    """Without each value in turn: then it is the sample's variance over the number of values."""
    array = np.array(values)
    without = (array.sum() - array) / (len(array) - 1)
    found = jackknife_variance(float(array.mean()), without, np.ones(len(array)))
    assert found == pytest.approx(variance(values) / len(values), rel=1e-6, abs=1e-12)


def test_of_a_single_group_the_jackknife_can_tell_nothing() -> None:
    assert jackknife_variance(0.5, np.array([0.5]), np.array([10.0])) == 0


@pytest.mark.parametrize(
    ("share", "observations", "expected"),
    [(0.0, 10, (0.0, 0.2775)), (0.1, 10, (0.0179, 0.4042)), (0.5, 100, (0.4038, 0.5962)), (1.0, 50, (0.9286, 1.0))],
)
def test_shares_have_the_interval_of_wilson(share: float, observations: int, expected: tuple[float, float]) -> None:
    """As tables of it say."""
    assert wilson_interval(share, observations) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("groups", "quantile"), [(4, 3.182), (6, 2.571), (11, 2.228), (32, 2.0395)])
def test_on_the_scale_of_log_odds_the_interval_is_students(groups: int, quantile: float) -> None:
    low, high = logit_interval(0.8, 0.03**2, groups, 100)
    odds = [math.log(end / (1 - end)) for end in (low, high)]
    assert odds[1] - odds[0] == pytest.approx(2 * quantile * 0.03 / 0.16, rel=0.01)
    assert sum(odds) / 2 == pytest.approx(math.log(4))


@pytest.mark.parametrize(("value", "variance_"), [(0.0, 0.1), (1.0, 0.0), (0.5, 0.0)])
def test_where_there_are_no_odds_the_interval_is_wilsons(value: float, variance_: float) -> None:
    assert logit_interval(value, variance_, 5, 40) == wilson_interval(value, 40)
