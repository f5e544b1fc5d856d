"""The list of the worst rows: a table that reads back as it was written, and in which no text is a formula."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.report.samples import Sample
from clip_operator.report.worst_rows import MOST_WORST_ROWS, as_csv, read_worst_rows
from clip_operator.steps import worst_rows_uri
from clip_operator.storage import Storage

NAMES = ["row", "score", "image", "text", "sentence", "sentence_score"]
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", '=HYPERLINK("http://a.org","a")']

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40) | st.sampled_from(FORMULAS)
samples = st.builds(
    Sample,
    row=st.none() | st.integers(1, 1 << 40),
    image=texts,
    text=st.none() | texts,
    score=st.floats(0, 1),
    sentence=st.none() | texts,
    sentence_score=st.none() | st.floats(0, 1),
)


def cells(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(rows=st.lists(samples, max_size=5))
def test_whatever_texts_hold_every_cell_stays_one_and_none_is_a_formula(rows: list[Sample]) -> None:
    table = cells(as_csv(rows))
    assert table[0] == NAMES
    assert len(table) == 1 + len(rows)
    for line, row in zip(table[1:], rows, strict=True):
        assert line[:2] == ["" if row.row is None else str(row.row), repr(row.score)]
        for cell, text in zip(line[2:5], (row.image, row.text, row.sentence), strict=True):
            assert cell in (text or "", f"'{text}")
            assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@settings(max_examples=100, derandomize=True, deadline=None)
@given(rows=st.lists(samples, max_size=5))
def test_a_list_that_is_read_is_written_the_same(rows: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> None:
    output = f"{tmp_path_factory.mktemp('list')}/out.jsonl"
    Path(worst_rows_uri(output)).write_bytes(written := as_csv(rows))
    found = read_worst_rows(Storage(), output)
    assert found is not None
    assert as_csv(found) == written
    assert [(row.row, row.score, row.sentence_score) for row in found] == [
        (row.row, row.score, row.sentence_score) for row in rows
    ]


@pytest.mark.parametrize(
    "forged",
    [
        b"\xff\xfe",
        b'row,score\n1,"0.5',
        b"row,score\n1,nan\n",
        b"row,score\n1,7\n",
        b"row,score\n-1,0.5\n",
        b"text\n" + b"x" * 200_000 + b"\n",
        b"text\n" + b"x\n" * (MOST_WORST_ROWS + 1),
        b" " * (33 << 20),
    ],
    ids=lambda forged: repr(forged[:20]),
)
def test_what_is_no_list_of_ours_is_none(tmp_path: Path, forged: bytes) -> None:
    output = f"{tmp_path}/out.jsonl"
    assert read_worst_rows(Storage(), output) is None
    Path(worst_rows_uri(output)).write_bytes(forged)
    assert read_worst_rows(Storage(), output) is None
