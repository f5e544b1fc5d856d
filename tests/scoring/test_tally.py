"""The statistics of the manifest are those of the scores, in memory that does not grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.errors import Reason, RowError
from clip_operator.scoring import RowResult, Tally


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=200))
def test_statistics_agree_with_numpy(scores: list[float]) -> None:
    tally = Tally()
    for score in scores:
        tally.add(RowResult(score))
    statistics = tally.statistics()
    assert statistics is not None
    assert statistics.count == len(scores)
    assert statistics.mean == pytest.approx(np.mean(scores), abs=1e-6)
    assert statistics.standard_deviation == pytest.approx(np.std(scores), abs=1e-6)
    assert (statistics.minimum, statistics.maximum) == (min(scores), max(scores))
    for name, value in statistics.quantiles.items():
        exact = np.quantile(scores, int(name[1:]) / 100, method="inverted_cdf")
        assert value == pytest.approx(exact, abs=1e-4)


def test_rows_without_a_score_are_counted_by_reason_and_stay_out_of_the_statistics() -> None:
    tally = Tally()
    for result in (
        RowResult(0.5),
        RowResult(None, error=RowError(Reason.TEXT_EMPTY, "the caption is empty")),
        RowResult(None, error=RowError(Reason.IMAGE_NOT_FOUND, "gone")),
        RowResult(0.7, truncated=True),
        RowResult(None, error=RowError(Reason.IMAGE_NOT_FOUND, "gone")),
    ):
        tally.add(result)
    counts = tally.row_counts()
    assert (counts.total, counts.scored, counts.failed, counts.truncated_texts) == (5, 2, 3, 1)
    assert counts.failures == {"image_not_found": 2, "text_empty": 1}
    statistics = tally.statistics()
    assert statistics is not None
    assert statistics.mean == pytest.approx(0.6)


def test_without_scores_there_are_no_statistics() -> None:
    assert Tally().statistics() is None
