"""Each row's image is scored with another row's text as well, chosen by the rows alone."""

from __future__ import annotations

import threading
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator import model
from clip_operator.scoring import RowResult, Rows, Scorer
from clip_operator.storage import Storage
from tests.conftest import SHAPES
from tests.scoring.test_scorer import Colours

Pair = tuple[str, str]

ENCODER = cache(
    lambda: model.load_encoder(model.find_checkpoint(SHAPES, None, Storage()), model.choose_device("cpu"), "fp32", 4)
)


def scored(rows: list[Pair], known: list[RowResult | None] | None = None) -> list[RowResult]:
    """Score rows that are read together."""
    chunk = Rows(None, [image for image, _ in rows], [text for _, text in rows], known)
    [(_, results)] = Scorer(ENCODER(), Colours(), threading.Event()).score([chunk])
    return results


@cache
def alone(image: str, text: str) -> float | None:
    return scored([(image, text)])[0].score


def partner_by_definition(rows: list[Pair], row: int) -> int | None:
    count = len(rows)
    for further in range(16):
        other = (row + count // 2 + further) % count
        if rows[other][0] != rows[row][0] and rows[other][1] != rows[row][1]:
            return other
    return None


COLOURS = ["red", "blue", "green", "white", "black", "yellow"]
TEXTS = ["red", "a blue circle", "two green triangles", "a black square"]
ROWS = st.lists(st.tuples(st.sampled_from(COLOURS), st.sampled_from(TEXTS)), min_size=1, max_size=50)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(rows=ROWS)
def test_a_row_is_paired_with_the_first_text_half_the_rows_on_that_belongs_to_another_image(rows: list[Pair]) -> None:
    for row, result in enumerate(scored(rows)):
        other = partner_by_definition(rows, row)
        expected = None if other is None else alone(rows[row][0], rows[other][1])
        assert result.mismatched == pytest.approx(expected, abs=1e-5)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(rows=ROWS, data=st.data())
def test_only_rows_that_are_scored_here_lend_and_borrow_texts(rows: list[Pair], data: st.DataObject) -> None:
    """Of rows that failed there is no pair, and those that were known keep what they have."""
    broken = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    taken = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    before = RowResult(0.25, mismatched=0.125)
    known = [before if row in taken else None for row in range(len(rows))]
    mixed = [("nowhere" if row in broken else image, text) for row, (image, text) in enumerate(rows)]
    results = scored(mixed, known)
    fresh = [row for row in range(len(rows)) if row not in taken | broken]
    expected = iter(scored([rows[row] for row in fresh]) if fresh else [])
    for row, result in enumerate(results):
        if row in taken:
            assert result == before
        elif row in broken:
            assert (result.score, result.mismatched) == (None, None)
        else:
            assert result.mismatched == pytest.approx(next(expected).mismatched, abs=1e-5)


@pytest.mark.parametrize(
    "rows",
    [
        [("red", "a red square")],
        [("red", text) for text in TEXTS],
        [(colour, "a red square") for colour in COLOURS],
        [("red", "red")] * 40,
        [("nowhere", "red"), ("red", "blue")],
    ],
    ids=["one row", "one image", "one text", "one pair", "one row with an image"],
)
def test_where_nothing_differs_there_is_no_pair(rows: list[Pair]) -> None:
    assert [result.mismatched for result in scored(rows)] == [None] * len(rows)
