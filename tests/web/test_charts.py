"""Small charts of what runs came to: every dot in the drawing, every gap a gap."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.web.charts import HEIGHT, WIDTH, chart
from clip_operator.web.pages import message_page, runs_page
from clip_operator.web.runs import Run


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
    for page in (runs_page(text, {text: [run, run]}), message_page(text, text)):
        assert text not in page
        assert "<script" not in page
        assert "<img" not in page
