"""Small charts of what runs came to: every dot in the drawing, every gap a gap."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.web.charts import HEIGHT, WIDTH, chart
from clip_operator.web.pages import message_page, runs_page
from clip_operator.web.runs import Run, Series, Task


@settings(max_examples=200, derandomize=True, deadline=None)
@given(values=st.lists(st.none() | st.floats(-1e9, 1e9), max_size=120))
def test_every_known_number_is_a_dot_in_its_place(values: list[float | None]) -> None:
    drawn = chart("Mean", values, [f"run {n}" for n in range(len(values))], str)
    known = [value for value in values if value is not None]
    if not known:
        assert drawn is None
        return
    assert drawn is not None
    assert len(drawn.dots) == len(known)
    assert all(0 <= dot.x <= WIDTH and 0 <= dot.y <= HEIGHT for dot in drawn.dots)
    assert [dot.x for dot in drawn.dots] == sorted(dot.x for dot in drawn.dots)
    pairs = sorted(zip(known, (dot.y for dot in drawn.dots), strict=True))
    assert all(low[1] >= high[1] for low, high in itertools.pairwise(pairs)), "more is higher"
    runs = "".join("x" if value is not None else " " for value in values).split()
    assert [len(points.split()) for points in drawn.lines] == [len(run) for run in runs if len(run) > 1]
    assert drawn.latest == str(known[-1])


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title><b>"])
def test_names_are_shown_and_never_run(text: str) -> None:
    run = Run(text, datetime(2026, 1, 2, tzinfo=UTC), 5, 0.5, None, 0.1, None, None)
    failed = Run(text, run.ended_at, has_failed=True, reason=(text,), map_index=3)
    tasks = [Task(text, [Series(None, [run, failed]), Series(text, [run, failed])], [(text, failed)], 7)]
    for page in (runs_page(text, tasks), message_page(text, text)):
        assert text not in page
        assert "<script" not in page
        assert "<img" not in page


@settings(max_examples=100, derandomize=True, deadline=None)
@given(values=st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=20), limit=st.floats(0, 1))
def test_the_limit_of_a_gate_is_in_the_drawing_and_on_the_right_side_of_every_dot(
    values: list[float | None], limit: float
) -> None:
    drawn = chart("AUC", values, ["" for _ in values], repr, ("min_auc", limit))
    if drawn is None:
        return
    assert drawn.limit is not None
    assert 0 <= drawn.limit.y <= HEIGHT
    assert drawn.limit.words == f"min_auc {limit!r}"
    known = [value for value in values if value is not None]
    for value, dot in zip(known, drawn.dots, strict=True):
        assert (value >= limit and dot.y <= drawn.limit.y) or (value <= limit and dot.y >= drawn.limit.y)
