"""The best rows are those that sorting all rows would put first, however many there are and however many are equal."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.request import RowFilter
from clip_operator.scoring import Keeper, best, best_of

# Few different ones, so that there are ties; neighbours, which the last bit alone tells apart; and any.
SCORE = st.one_of(
    st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0]),
    st.integers(0, 3).map(lambda bit: 0.5 + bit * 2**-53),
    st.floats(0, 1),
)
SHARE = st.one_of(st.integers(1, 100).map(lambda percent: percent / 100), st.floats(0, 1, exclude_min=True))


def plainly_kept(scores: list[float | None], share: float) -> list[bool]:
    """Tell by sorting which rows are the best."""
    scored = [(-score, row) for row, score in enumerate(scores) if score is not None]
    wanted = (Decimal(repr(share)) * len(scored)).to_integral_value(ROUND_CEILING)
    kept = {row for _, row in sorted(scored)[: int(wanted)]}
    return [row in kept for row in range(len(scores))]


@settings(
    derandomize=True, deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(scores=st.lists(st.one_of(st.none(), SCORE), max_size=40), share=SHARE, looked_at=st.integers(1, 9))
def test_the_best_rows_are_those_that_sorting_puts_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float | None], share: float, looked_at: int
) -> None:
    monkeypatch.setattr(best, "_BATCH", looked_at)
    scratch = tmp_path / "scores"
    keeper = Keeper(
        RowFilter(keep_top=share), None, best_of(share, (score for score in scores if score is not None), scratch)
    )
    assert [keeper.keeps(score) for score in scores] == plainly_kept(scores, share)
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("share", "rows", "kept"), [(0.07, 100, 7), (0.1, 30, 3), (0.3, 10, 3), (0.3, 11, 4), (1, 3, 3)]
)
def test_a_share_is_the_decimal_number_that_is_written(tmp_path: Path, share: float, rows: int, kept: int) -> None:
    """In binary 0.07 of 100 is a little more than 7, and would be 8 rows."""
    found = best_of(share, (1 - row / 1000 for row in range(rows)), tmp_path / "scores")
    assert found is not None
    assert (found.score, found.ties) == (1 - (kept - 1) / 1000, 1)
