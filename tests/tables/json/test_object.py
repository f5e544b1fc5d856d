"""JSON objects around a list of rows: all of the object stays as it is, and what has no one such list is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import (
    Fragment,
    TableScan,
    create_selection,
    create_table,
    cut_text,
    file_type_of,
    open_table,
    text_files,
)
from tests.tables.json.json_texts import objects
from tests.tables.rewriting import refusal, rewrite, rewritten, scan

SPACES = ["", " ", "\n  ", "\r\n\t"]
PLAIN = SPACES[:2]
MARKS = [(1_000_003 + number) / 1_000_000_007 for number in range(7)]
"""Scores that occur nowhere else in a text."""

# What may stand beside the rows: anything but a list whose first element is an object.
BESIDE = st.lists(
    st.tuples(
        st.sampled_from(["info", "version", "é\\n", "n"]),
        objects(PLAIN) | st.sampled_from(["1", "-0.0e1", '"]}"', "null", "[]", "[ ]", '["{", {"a": 1}]', "[[{}]]"]),
    ),
    max_size=3,
)


class Wrapped(NamedTuple):
    """An object with one list of objects in it, by its parts: up to the bracket, the rows, from the other one on."""

    head: str
    inner: str
    rows: list[str]
    tail: str

    @property
    def text(self) -> str:
        return self.head + self.inner + self.tail


@st.composite
def wrapped(draw: st.DrawFn) -> Wrapped:
    """Objects with one list of objects in them."""
    space = st.sampled_from(SPACES)

    def members(given: list[tuple[str, str]]) -> list[str]:
        return [f'"{key}"{draw(space)}:{draw(space)}{value}' for key, value in given]

    rows = draw(st.lists(objects(SPACES), min_size=1, max_size=6))
    inner = ",".join(draw(space) + row + draw(space) for row in rows)
    comma = f"{draw(space)},{draw(space)}"
    before = comma.join([*members(draw(BESIDE)), f'"data"{draw(space)}:{draw(space)}['])
    mark = draw(st.sampled_from(["", "\ufeff"]))
    after = comma.join(["]", *members(draw(BESIDE))])
    return Wrapped(f"{mark}{draw(space)}{{{draw(space)}{before}", inner, rows, f"{after}{draw(space)}}}{draw(space)}")


@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=wrapped(), chunk=st.integers(1, 7))
def test_only_the_new_member_is_added(tmp_path: Path, given: Wrapped, chunk: int) -> None:
    text, rows = given.text, given.rows
    output = rewritten(tmp_path, "t.json", text.encode(), {"clip_score": MARKS[: len(rows)]}, chunk).decode()
    rest_of_input, rest_of_output = text, output
    for row, mark in zip(rows, MARKS, strict=False):
        cut = rest_of_output.index(repr(mark))
        before = rest_of_output[:cut]
        kept = before[: before.rindex('"clip_score"')].rstrip().removesuffix(",").rstrip()
        assert rest_of_input.startswith(kept)
        # What follows the new member is what followed the old last one: white space and the closing brace.
        inner = rest_of_input[len(kept) :]
        tail = rest_of_output[cut + len(repr(mark)) :]
        assert inner.lstrip().startswith("}")
        assert tail.lstrip().startswith("}")
        assert row.rstrip("}").rstrip() in kept
        rest_of_input, rest_of_output = inner.lstrip(), tail.lstrip()
    assert rest_of_output == rest_of_input
    assert scan(tmp_path / "t.json").rows == len(rows)


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=wrapped(), rows=st.integers(1, 4), chunk=st.integers(1, 5))
def test_the_outputs_of_all_spans_are_the_output_of_a_single_pass(
    tmp_path: Path, given: Wrapped, rows: int, chunk: int
) -> None:
    text = given.text.encode()
    whole = rewritten(tmp_path, "t.json", text, {"clip_score": MARKS[: len(given.rows)]}, chunk)
    spans = cut_text(io.BytesIO(text), file_type_of("json"), rows).spans
    outputs = []
    for index, span in enumerate(spans):
        (tmp_path / "span.json").write_bytes(text[span.start : span.stop])
        marks = MARKS[span.first_row or 0 :][: span.rows]
        fragment = Fragment(first=index == 0, last=index == len(spans) - 1)
        rewrite(tmp_path / "span.json", tmp_path / "scored.json", {"clip_score": marks}, chunk, fragment)
        outputs.append((tmp_path / "scored.json").read_bytes())
    assert b"".join(outputs) == whole


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=wrapped(), kept=st.lists(st.booleans(), min_size=6, max_size=6), chunk=st.integers(1, 7))
def test_a_selection_is_in_the_same_object(tmp_path: Path, given: Wrapped, kept: list[bool], chunk: int) -> None:
    (tmp_path / "t.json").write_bytes(given.text.encode())
    with (
        open_table(tmp_path / "t.json", file_type_of("json")) as table,
        create_selection(tmp_path / "some.json", table) as selection,
    ):
        for some in table.chunks(chunk):
            selection.write(some.select(kept[some.first_row : some.first_row + len(some)]), {})
    written = (tmp_path / "some.json").read_bytes().decode()
    wanted = [row for row, is_kept in zip(given.rows, kept, strict=False) if is_kept]
    inner = ",\n".join(wanted)
    assert written == (f"{given.head}\n{inner}\n{given.tail}" if wanted else "[]")


def test_an_object_without_a_list_of_rows_is_the_only_row(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf {"id": "1",\n "tags": [], "words": ["a"]}'
    assert scan_of(tmp_path, content) == TableScan(1, ("id", "tags", "words"))
    scored = rewritten(tmp_path, "t.json", content, {"s": [1.0]})
    assert scored == b'\xef\xbb\xbf {"id": "1",\n "tags": [], "words": ["a"], "s": 1.0}'
    assert rewritten(tmp_path, "t.json", content, {"s": [1.0]}, target="jsonl").endswith(b'"words": ["a"], "s": 1.0}\n')


def scan_of(folder: Path, content: bytes) -> TableScan:
    (folder / "t.json").write_bytes(content)
    return scan(folder / "t.json")


def test_an_object_that_is_nothing_but_an_empty_list_is_a_table_without_rows(tmp_path: Path) -> None:
    content = b'{\n "data" : [ ]\n}\n'
    assert scan_of(tmp_path, content) == TableScan(0, ())
    assert rewritten(tmp_path, "t.json", content, {"s": []}) == content


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b'{"a": [{"x": 1}], "b": [{}], "c": [1]}',
            "The file holds an object with 2 lists of objects ('a', 'b'), and which one has the rows cannot be told",
        ),
        (b'{"data": [{}, 1]}', "element 2 of member 1 is a number, expected a JSON object"),
        (b'{"data": [{}', "The file ends after element 1 of member 1, before its array is closed"),
        (b'{"data": [{}]', "The file ends after member 1, before its object is closed"),
        (b'{"data": [{}] "b": 1}', "member 1 is not followed by a comma or the end of the object"),
        (b'{"data": [{"a" 1}]}', "element 1 of member 1 is not valid JSON"),
        (b'{"a": tru, "data": [{}]}', "member 1 is not valid JSON"),
        (b'{"a", "data": [{}]}', "member 1 is not a name with a colon behind it"),
        (b'{1: 2, "data": [{}]}', "member 1 is not a name with a colon behind it"),
        (b'{"data": [{}],}', "the name of member 2 is not valid JSON"),
        (b'{"data": [{}]} {}', "There is more text behind the end of the object"),
        (b'{"data": [{}', "The file ends after element 1"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    assert refusal(tmp_path, "t.json", content).startswith(problem)


@pytest.mark.parametrize("target", ["out.jsonl", "out.json"])
def test_what_stands_around_the_rows_is_not_dropped(tmp_path: Path, target: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(b'{"info": {"a": 1}, "data": [{"x": 1}], "more": 2}')
    source = path if target == "out.jsonl" else [path, path]
    with open_table(source, file_type_of("json")) as table:
        table.scan()
        with pytest.raises(JobError, match=r"has other members, too \('info', 'more'\), which JSON lines"):
            create_table(tmp_path / target, file_type_of(target), table, {})


def test_rows_alone_in_an_object_become_lines(tmp_path: Path) -> None:
    content = b'{"data": [{"x": 1},\n {"x": 2}]}'
    assert rewritten(tmp_path, "t.json", content, {}, target="jsonl") == b'{"x": 1}\n{"x": 2}\n'


def test_what_stands_around_the_rows_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_LENGTH", 1024 * 1024)
    content = json.dumps({**{f"m{number}": "x" * 300_000 for number in range(4)}, "data": [{"x": 1}]}).encode()
    assert refusal(tmp_path, "t.json", content).startswith("What stands around the list of rows is larger than 1 MiB")


def test_numbers_beside_the_rows_are_not_cut_at_the_end_of_a_block(tmp_path: Path) -> None:
    for shift in range(20):
        content = ('{"a": "' + "x" * (1024 * 1024 - 20 + shift) + '", "n": -1.5e-10, "data": [{"x": 1}]}').encode()
        assert rewritten(tmp_path, "t.json", content, {}) == content
