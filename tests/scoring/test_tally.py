"""The statistics of the manifest are those of the scores, in memory that does not grow."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from clip_operator.errors import Reason, RowError
from clip_operator.proof.manifest import GroupedCounts, ScoreSums
from clip_operator.scoring import RowResult, Tally
from tests.scoring.test_calibration import paired

COUNTS: TypeAdapter[bytes] = TypeAdapter(GroupedCounts)
FLOAT32 = st.floats(0, 1, width=32)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=200))
def test_statistics_agree_with_numpy(scores: list[float]) -> None:
    tally = Tally()
    for score in scores:
        tally.add(RowResult(score))
    tally.add_pairs(paired([*scores], []))
    statistics = tally.statistics()
    assert statistics is not None
    assert statistics.count == len(scores)
    assert statistics.mean == pytest.approx(np.mean(scores), abs=1e-6)
    assert statistics.standard_deviation == pytest.approx(np.std(scores), abs=1e-6)
    assert (statistics.minimum, statistics.maximum) == (min(scores), max(scores))
    for name, value in statistics.quantiles.items():
        exact = np.quantile(scores, int(name[1:]) / 100, method="inverted_cdf")
        assert value == pytest.approx(exact, abs=1e-4)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.floats(0, 1), FLOAT32), st.one_of(st.none(), FLOAT32), st.integers(0, 300)),
        max_size=200,
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_statistics_and_calibration_do_not_depend_on_how_rows_were_cut_to_the_last_bit(
    scores: list[tuple[float | None, float | None, int]], cuts: list[int]
) -> None:
    def counted(rows: list[tuple[float | None, float | None, int]]) -> Tally:
        tally = Tally()
        for score, mismatched, image in rows:
            error = RowError(Reason.TEXT_EMPTY, "the caption is empty") if score is None else None
            tally.add(RowResult(score, bool(score and score > 0.5), error))
            tally.add_pairs(paired([score], [] if error or mismatched is None else [mismatched], [image]))
        return tally

    whole, merged = counted(scores), Tally()
    bounds = sorted({0, *(min(cut, len(scores)) for cut in cuts), len(scores)})
    for start, stop in reversed(list(pairwise(bounds))):  # in whatever order
        part = counted(scores[start:stop])
        sums = ScoreSums.model_validate_json(part.sums().model_dump_json())
        mismatched = COUNTS.validate_json(COUNTS.dump_json(part.mismatched()))
        merged.add_counted(part.row_counts(), part.statistics(), sums, mismatched)
    assert merged.row_counts() == whole.row_counts()
    assert merged.statistics() == whole.statistics()
    assert (merged.sums(), merged.mismatched()) == (whole.sums(), whole.mismatched())
    assert merged.calibration() == whole.calibration()
    null, of_whole = merged.null_distribution(), whole.null_distribution()
    assert (null is None) == (of_whole is None)
    if null is not None and of_whole is not None:
        assert (null.percentiles == of_whole.percentiles).all()


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
        tally.add_pairs(paired([result.score], []))
    counts = tally.row_counts()
    assert (counts.total, counts.scored, counts.failed, counts.truncated_texts) == (5, 2, 3, 1)
    assert counts.failures == {"image_not_found": 2, "text_empty": 1}
    statistics = tally.statistics()
    assert statistics is not None
    assert statistics.mean == pytest.approx(0.6)


def test_without_scores_there_are_no_statistics() -> None:
    assert Tally().statistics() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[:-9],
        lambda d: d[:0] + b"{}",
        lambda d: zlib.compress(zlib.decompress(d) * 2),
        lambda d: zlib.compress(b"\xff" * 8 + zlib.decompress(d)[8:]),
    ],
)
def test_counts_that_cannot_be_are_refused_where_a_manifest_is_read(damage: Callable[[bytes], bytes]) -> None:
    """Too few, none at all, too many, and fewer than none."""
    with pytest.raises(ValidationError):
        COUNTS.validate_python(damage(Tally().mismatched()))
