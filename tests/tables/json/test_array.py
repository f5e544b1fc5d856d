"""JSON arrays in and out: streamed, with the brackets, commas and indentation of the input."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import AddedType, TableScan, create_table, file_type_of, open_table, text_files
from tests.tables.json.json_texts import as_written, objects, without_member
from tests.tables.rewriting import refusal, rewritten, scan

SPACES = ["", " ", "\n", "\n    ", "\r\n\t"]


def failure(folder: Path, content: bytes) -> str:
    return refusal(folder, "t.json", content)


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(objects(SPACES), st.sampled_from(SPACES), st.sampled_from(SPACES)), max_size=6),
    ends=st.tuples(*[st.sampled_from(SPACES)] * 3),
    mark=st.booleans(),
    chunk=st.integers(1, 7),
)
def test_only_the_new_member_is_added(
    tmp_path: Path, rows: list[tuple[str, str, str]], ends: tuple[str, str, str], mark: bool, chunk: int
) -> None:
    elements = ",".join(before + text + after for text, before, after in rows)
    content = ("\ufeff" if mark else "") + f"{ends[0]}[{elements}{ends[1]}]{ends[2]}"
    # A value that occurs nowhere else shows where the new members stand.
    scores = [(1_000_003 + number) / 1_000_000_007 for number in range(len(rows))]

    output = rewritten(tmp_path, "t.json", content.encode(), {"clip_score": scores}, chunk).decode()

    rest_of_input, rest_of_output = content, output
    for (text, _, _), score in zip(rows, scores, strict=True):
        head = text[:-1].rstrip()
        cut = rest_of_input.index(text) + len(head)
        assert rest_of_output.startswith(rest_of_input[:cut])
        rest_of_input, rest_of_output = rest_of_input[cut:], rest_of_output[cut:]
        inserted, rest_of_output = rest_of_output.split(repr(score), 1)
        separator, key, colon = inserted.partition('"clip_score"')
        assert key
        assert separator.strip() in ({","} if head != "{" else {""})
        assert colon.strip() == ":"
    assert rest_of_output == rest_of_input

    old_rows, new_rows = as_written(content.removeprefix("\ufeff")), as_written(output.removeprefix("\ufeff"))
    assert isinstance(new_rows, list)
    assert [without_member(row, "clip_score") for row in new_rows] == old_rows
    assert scan(tmp_path / "t.json").rows == len(rows)


def test_a_pretty_printed_file_stays_pretty_printed(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": "001", "tags": ["a", {"b": None}]}, {"id": "002"}]
    scored = [{**row, "clip_score": 0.25} for row in rows]
    for style in ({"indent": 2}, {"indent": 4}, {"indent": "\t"}, {}, {"separators": (",", ":")}):
        output = rewritten(tmp_path, "t.json", json.dumps(rows, **style).encode(), {"clip_score": [0.25, 0.25]})
        assert output.decode() == json.dumps(scored, **style)


def test_an_existing_member_has_only_its_value_replaced(tmp_path: Path) -> None:
    content = b'[\n  { "clip_score" : [1,\n 2], "a" : 1.0 }\n]\n'
    assert rewritten(tmp_path, "t.json", content, {"clip_score": [None]}) == (
        b'[\n  { "clip_score" : null, "a" : 1.0 }\n]\n'
    )


@pytest.mark.parametrize("content", [b"[]", b" [ \n ]\r\n", b"\xef\xbb\xbf[]\n"])
def test_an_empty_array_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    assert rewritten(tmp_path, "t.json", content, {"s": []}) == content
    assert scan(tmp_path / "t.json") == TableScan(0, ())


def test_elements_and_gaps_longer_than_a_block_are_read(tmp_path: Path) -> None:
    long = "é" * 3_000_000
    content = f'[{{"a":"{long}"%s}}{" " * 2_500_000},{{"b":{{"c":"{long}"}}%s}}]'
    output = rewritten(tmp_path, "t.json", (content % ("", "")).encode(), {"s": [1.0, 2.0]})
    assert output == (content % (',"s":1.0', ',"s":2.0')).encode()


def test_many_elements_across_blocks_are_all_there(tmp_path: Path) -> None:
    rows = [{"id": number, "text": "x" * (number % 97)} for number in range(40_000)]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows))
    with open_table(path, file_type_of(path.name), ["id"]) as reader:
        assert reader.scan() == TableScan(40_000, ("id", "text"))
        assert [value for chunk in reader.chunks(999) for value in chunk.column("id")] == list(range(40_000))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b'{"a":1}\n{"a":2}\n',
            "There is more text behind the end of the object. If the file has one object a line, name it .jsonl",
        ),
        (b"", "the file is empty, without even an array; write or upload it again"),
        (b" \n\t", "the file is empty, without even an array"),
        (b"\xef\xbb\xbf", "the file is empty, without even an array"),
        (b'"text', "The file holds a string at top level"),
        (b"12", "The file holds a number at top level"),
        (b"null", "The file holds null at top level"),
        (b"true", "The file holds a boolean at top level"),
        (b"id,text\n1,a", "The file holds text that is not JSON at top level"),
        (b"[1]", "element 1 is a number, expected a JSON object"),
        (b'[{}, "x"]', "element 2 is a string, expected a JSON object"),
        (b'[{}, {"a" 1}]', "element 2 is not valid JSON (Expecting ':' delimiter at character 6)"),
        (b'[{}, {"a": 1 "b": 2}]', "element 2 is not valid JSON (Expecting ',' delimiter at character 9)"),
        (b"[{},]", "element 2 is not valid JSON (Expecting value at character 1)"),
        (b"[,{}]", "element 1 is not valid JSON"),
        (b"[{} {}]", "element 1 is not followed by a comma or the end of the array"),
        (b"[{}] x", "There is more text behind the end of the array, after element 1"),
        (b"[] []", "There is more text behind the end of the array, after element 0"),
        (b"[{}", "The file ends after element 1, before its array is closed"),
        (b"[{},", "element 2 is not valid JSON (Expecting value at character 1)"),
        (b"[", "element 1 is not valid JSON"),
        (b'[{"a": "x', "element 1 is not valid JSON (Unterminated string starting at character 7)"),
        (b'[\n{},\n{"a":"\xff"}]', "line 3 is not UTF-8 text (invalid start byte, byte 0xff)"),
        (b'[{"a":"\xc3', "line 1 is not UTF-8 text (unexpected end of data"),
        (b'[{"a":' + b"[" * 100_000, "element 1 is nested too deeply"),
        (b"[" * 100_000, "element 1 is nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    assert failure(tmp_path, content).startswith(problem)


@pytest.mark.parametrize("element", [b'{"a": 1 "b": 2}', b'{"a" 1}', b'{"a": tru}', b'{"a": "\\x"}'])
def test_a_broken_element_is_reported_without_reading_to_the_end(tmp_path: Path, element: bytes) -> None:
    # The gzip data behind the broken element is cut off, which would be the error if it was read.
    path = tmp_path / "t.json.gz"
    broken = b"[" + element + b"," + b" " * 5_000_000
    path.write_bytes(gzip.compress(broken, compresslevel=0)[:-1_000_000])
    with pytest.raises(JobError, match="element 1 is not valid JSON"):
        scan(path)


def test_an_element_over_the_limit_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_LENGTH", 1024 * 1024)
    long = b'{"a":"' + b"x" * 2 * 1024 * 1024 + b'"}'
    assert failure(tmp_path, b"[{}," + long + b"]").startswith("element 2 is larger than 1 MiB")
    assert failure(tmp_path, b"[{}," + long).startswith("element 2 is larger than 1 MiB")


def test_an_element_of_too_many_values_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_VALUES", 100_000)
    padding = b'{"p":"' + b"x" * 900_000 + b'","a":['
    few, many = (padding + b"[]," * values + b"1]}" for values in (45_000, 55_000))
    # More than the limit in all elements together, across the blocks in which the file is read.
    assert rewritten(tmp_path, "t.json", b"[" + few + b"," + few + b"]", {"s": [1.0, 1.0]}).count(b'"s":1.0') == 2
    for end in (b"]", b"", b",{}]"):
        message = failure(tmp_path, b"[{}," + many + end)
        assert message == "element 2 has more than 100,000 values, the most that are accepted."


def test_an_output_that_misses_elements_is_not_completed(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(b"[{}, {}]")
    target = tmp_path / "out.json"
    with open_table(path, file_type_of("json")) as reader:
        writer = create_table(target, file_type_of("json"), reader, {"s": AddedType.FLOAT64})
        writer.write(next(reader.chunks(1)), {"s": [1.0]})
        with pytest.raises(JobError, match="before the last element"):
            writer.close()
    assert not target.exists()
