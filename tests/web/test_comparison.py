"""Two runs side by side: what is called better, what worse, and what chance may have made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.report.samples import Sample, Samples
from clip_operator.web.comparison import MOST_ROWS, rows_of_both, statistics
from clip_operator.web.overlay import HEIGHT, WIDTH, Bins, overlay


def summary(mean: float = 0.5, failed: int = 10, auc: float = 0.8, model: str = "m", **changed: Any) -> dict[str, Any]:
    return {
        "rows": {"total": 1000, "failed": failed, "failures": {"text_empty": failed}},
        "scores": {"count": 1000 - failed, "mean": mean, "standard_deviation": 0.05, "quantiles": {"p50": mean}},
        "calibration": {"auc": auc, "auc_interval": [auc - 0.02, auc + 0.02], "threshold": 0.5},
        "model": model,
        "rows_per_second": 10.0,
        **changed,
    }


def said(before: Any, after: Any) -> dict[str, tuple[str, str]]:
    return {each.name: (each.difference, each.verdict) for each in statistics(before, after)}


@pytest.mark.parametrize(
    ("before", "after", "name", "expected"),
    [
        (summary(), summary(mean=0.52), "Mean score", ("+ 0.0200", "better")),
        (summary(), summary(mean=0.48), "Mean score", ("\N{MINUS SIGN} 0.0200", "worse")),
        (summary(), summary(mean=0.501), "Mean score", ("+ 0.0010", "alike")),
        (summary(), summary(), "Mean score", ("± 0.0000", "alike")),
        (summary(), summary(mean=0.7, model="other"), "Mean score", ("+ 0.2000", "")),
        (summary(), summary(auc=0.9), "AUC", ("+ 0.100", "better")),
        (summary(), summary(auc=0.83), "AUC", ("+ 0.030", "alike")),
        (summary(), summary(failed=100), "Rows without a score", ("+ 9.0 %", "worse")),
        (summary(), summary(failed=100), "… text_empty", ("+ 9.0 %", "worse")),
        (summary(failed=12), summary(), "Rows without a score", ("\N{MINUS SIGN} 0.2 %", "alike")),
        (summary(calibration=None), summary(), "AUC", ("", "")),
        (summary(), summary(), "50 % score less than", ("± 0.0000", "")),
        (summary(calibration={"auc": 0.5, "auc_interval": 7}), summary(auc=0.9), "AUC", ("+ 0.400", "alike")),
    ],
)
def test_a_difference_has_a_verdict_where_there_can_be_one(
    before: Any, after: Any, name: str, expected: tuple[str, str]
) -> None:
    assert said(before, after)[name] == expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rows", "scores", "calibration", "total", "failed", "auc", "count"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(before=st.dictionaries(st.text(max_size=3), _JSON), after=_JSON)
def test_whatever_a_summary_holds_is_compared_or_left_out(before: Any, after: Any) -> None:
    for some in (before, {"rows": after, "scores": after, "calibration": after}):
        for each in statistics(some, {"rows": after, "scores": after, "calibration": after}):
            assert "nan" not in each.before + each.after + each.difference


def sample(image: str, score: float | None, text: str = "a cat") -> Sample:
    return Sample(row=1, image=image, text=text, score=score)


def test_rows_that_changed_most_come_first_then_those_of_one_run_the_worst_first() -> None:
    before = Samples(worst=[sample("a", 0.2), sample("b", 0.3)], best=[sample("c", 0.9), sample("a", 0.2)])
    after = Samples(worst=[sample("b", 0.7), sample("d", 0.1), sample("a", 0.1)], best=[sample("e", None)])
    rows = rows_of_both(before, after)
    assert [(row.image, row.before, row.after) for row in rows] == [
        ("b", 0.3, 0.7),
        ("a", 0.2, 0.1),
        ("d", None, 0.1),
        ("c", 0.9, None),
    ]
    assert rows_of_both(None, None) == []
    many = Samples.model_construct(worst=[sample(str(n), 0.1) for n in range(100)], best=[])
    assert len(rows_of_both(many, None)) == MOST_ROWS


_BINS = st.builds(
    Bins, st.lists(st.integers(0, 1000), min_size=1, max_size=60), st.floats(0, 0.9), st.floats(0.001, 0.02)
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(before=_BINS, after=_BINS)
def test_both_histograms_are_in_the_drawing(before: Bins, after: Bins) -> None:
    drawing = overlay(before, after)
    if not any(before.counts) or not any(after.counts):
        assert drawing is None
        return
    assert drawing is not None
    for outline in (drawing.before, drawing.after):
        points = [tuple(map(float, point.split(","))) for point in outline.split()]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert min(y for _, y in points) < drawing.baseline, "it is not flat"
