"""JSON Lines in and out: every byte of the input stays, and the new member stands where the last one ends."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import AddedType, TableScan, create_table, file_type_of, open_table, text_files
from tests.tables.json.json_texts import as_written, objects, without_member
from tests.tables.rewriting import Added, refusal, rewritten, scan

LINE_SPACES = ["", " ", "  ", "\t"]
ENDINGS = ["\n", "\r\n", " \n", "\t\r\n"]
NEW_MEMBER = re.compile(rb'[ \t]*,?[ \t]*"clip_score"[ \t]*:[ \t]*(?:null|-?[0-9.e+-]+)')


def failure(folder: Path, content: bytes) -> str:
    return refusal(folder, "t.jsonl", content)


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(
            objects(LINE_SPACES), st.sampled_from(LINE_SPACES), st.sampled_from(ENDINGS), st.none() | st.floats(0, 1)
        ),
        max_size=6,
    ),
    mark=st.booleans(),
    final_newline=st.booleans(),
    chunk=st.integers(1, 7),
)
def test_only_the_new_member_is_added(
    tmp_path: Path, rows: list[tuple[str, str, str, float | None]], mark: bool, final_newline: bool, chunk: int
) -> None:
    lines = [f"{indent}{text}{ending}" for text, indent, ending, _ in rows]
    content = ("\ufeff" if mark and rows else "") + "".join(lines)
    content = content if final_newline else content.rstrip("\r\n")
    scores = [score for *_, score in rows]

    output = rewritten(tmp_path, "t.jsonl", content.encode(), {"clip_score": scores}, chunk)

    before, after = content.encode().split(b"\n"), output.split(b"\n")
    assert len(after) == len(before)
    for old, new, score in zip(before, after, [*scores, None], strict=False):
        if not old.strip():
            assert new == old
            continue
        # All of the old line up to the end of its last value, the member, and the rest of the old line.
        head = old.rstrip(b" \t\r")[:-1].rstrip(b" \t")
        tail = old[len(head) :]
        assert new.startswith(head)
        assert new.endswith(tail)
        assert NEW_MEMBER.fullmatch(new[len(head) : len(new) - len(tail)])
        parsed_new = as_written(new.decode().removeprefix("\ufeff"))
        assert without_member(parsed_new, "clip_score") == as_written(old.decode().removeprefix("\ufeff"))
        assert json.loads(new.decode().removeprefix("\ufeff"), parse_int=str)["clip_score"] == score


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(objects(LINE_SPACES), min_size=1, max_size=6), score=st.floats(0, 1))
def test_replacing_what_was_added_gives_the_same_as_adding_it_first(
    tmp_path: Path, rows: list[str], score: float
) -> None:
    content = "\n".join(rows).encode()
    first = rewritten(tmp_path, "t.jsonl", content, {"clip_score": [0.123] * len(rows)})
    again = rewritten(tmp_path, "t.jsonl", first, {"clip_score": [score] * len(rows)})
    assert again == rewritten(tmp_path, "t.jsonl", content, {"clip_score": [score] * len(rows)})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"a":1}', '{"a":1,"clip_score":0.61}'),
        ('{"a": 1}', '{"a": 1, "clip_score": 0.61}'),
        ('{"a":1, "b":2}', '{"a":1, "b":2, "clip_score":0.61}'),
        ('{"a" : 1 , "b" : 2 }', '{"a" : 1 , "b" : 2 , "clip_score" : 0.61 }'),
        ("{}", '{"clip_score": 0.61}'),
        ("{ }", '{"clip_score": 0.61 }'),
        (
            '{"id": "00123", "p": 0.1234567890123456789}',
            '{"id": "00123", "p": 0.1234567890123456789, "clip_score": 0.61}',
        ),
        ('{"a": NaN, "b": -Infinity}', '{"a": NaN, "b": -Infinity, "clip_score": 0.61}'),
        ('{"a":{"clip_score":1}}', '{"a":{"clip_score":1},"clip_score":0.61}'),
        ('{"a":"\\"clip_score\\":1"}', '{"a":"\\"clip_score\\":1","clip_score":0.61}'),
    ],
)
def test_a_new_member_is_written_in_the_style_of_the_last_one(tmp_path: Path, row: str, expected: str) -> None:
    assert rewritten(tmp_path, "t.jsonl", row.encode(), {"clip_score": [0.61]}).decode() == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"clip_score": 1e0 , "a": 1}', '{"clip_score": 0.61 , "a": 1}'),
        ('{"clip_score":{"x":[1,"}"]},"a":1}', '{"clip_score":0.61,"a":1}'),
        ('{"clip\\u005fscore": null}', '{"clip\\u005fscore": 0.61}'),
        ('{"clip_score":1,"a":2,"clip_score":3}', '{"clip_score":0.61,"a":2,"clip_score":0.61}'),
    ],
)
def test_an_existing_member_has_only_its_value_replaced(tmp_path: Path, row: str, expected: str) -> None:
    assert rewritten(tmp_path, "t.jsonl", row.encode(), {"clip_score": [0.61]}).decode() == expected


def test_several_columns_come_in_order_whether_new_or_replaced(tmp_path: Path) -> None:
    added: Added = {"clip_score": [0.5, None], "clip_error": [None, "text_empty"], "clip_note": ["é\u2028\ud800", '"']}
    content = b'{"clip_error":0,"a":1}\n{}\n'
    assert rewritten(tmp_path, "t.jsonl", content, added).decode() == (
        '{"clip_error":null,"a":1,"clip_score":0.5,"clip_note":"\\u00e9\\u2028\\ud800"}\n'
        '{"clip_score": null, "clip_error": "text_empty", "clip_note": "\\""}\n'
    )


def test_a_readable_column_name_is_not_escaped(tmp_path: Path) -> None:
    assert rewritten(tmp_path, "t.jsonl", b"{}", {"图文分": [1.0]}).decode() == '{"图文分": 1.0}'


def test_blank_lines_are_dropped_and_not_counted(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf\n \r\n{"a":1}\n\n\t\n{"a":2}\n\n'
    output = rewritten(tmp_path, "t.jsonl", content, {"s": [1.0, 2.0]})
    assert output == b'\xef\xbb\xbf{"a":1,"s":1.0}\n{"a":2,"s":2.0}\n'
    assert scan(tmp_path / "t.jsonl") == TableScan(2, ("a",))


def test_an_empty_file_is_an_empty_table(tmp_path: Path) -> None:
    assert rewritten(tmp_path, "t.jsonl", b"", {"s": []}) == b""
    assert scan(tmp_path / "t.jsonl") == TableScan(0, ())


def test_a_scan_names_the_fields_in_order_of_first_appearance(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"b":1,"a":{"x":2}}\n{"c":3,"a":4}\n{"a":1}\n')
    assert scan(path) == TableScan(3, ("b", "a", "c"))


def test_a_scan_remembers_a_bounded_number_of_names_but_always_the_announced_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"k{number}": 1}}\n' for number in range(10_500)) + '{"text": ""}\n')
    assert len(scan(path).columns) == 10_000
    with open_table(path, file_type_of(path.name), ["text"]) as reader:
        assert reader.scan().columns[-2:] == ("k9999", "text")


def test_a_column_gives_python_values_and_none_where_the_field_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"a":"x","b":[1]}\n{"a":null}\n{}\n{"a":1,"a":2}\n{"a":' + b"9" * 5000 + b"}\n")
    for announced in (None, ["a"], ["b"]):
        with open_table(path, file_type_of(path.name), announced) as reader:
            chunks = list(reader.chunks(2))
            assert [(chunk.first_row, len(chunk)) for chunk in chunks] == [(0, 2), (2, 2), (4, 1)]
            assert [chunk.column("a") for chunk in chunks] == [["x", None], [None, 2], [float("inf")]]
            assert chunks[0].column("b") == [[1], None]
            assert chunks[0].column("nowhere") == [None, None]
            assert [chunk.first_row for chunk in reader.chunks(3)] == [0, 3]


def test_the_chunk_size_does_not_show_in_the_output(tmp_path: Path) -> None:
    content = b"".join(b'{"a": %d}\r\n' % number for number in range(50))
    added = {"s": [number / 7 for number in range(50)]}
    outputs = {rewritten(tmp_path, "t.jsonl.gz", gzip.compress(content), added, rows) for rows in (1, 3, 50, 1000)}
    assert len(outputs) == 1


def test_a_chunk_ends_early_where_rows_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_operator.tables.table.CHUNK_BYTES", 100)
    path = tmp_path / "t.jsonl"
    path.write_bytes((b'{"a":"' + b"x" * 60 + b'"}\n') * 5)
    with open_table(path, file_type_of(path.name)) as reader:
        assert [len(chunk) for chunk in reader.chunks(1000)] == [2, 2, 1]


def test_broken_json_is_reported_with_line_and_problem_and_not_quoted(tmp_path: Path) -> None:
    message = failure(tmp_path, b'{"a": 1}\n\n{"a": 1 "b": 2, "c": "' + b"x" * 100 + b'"}\n')
    assert message == "line 3 is not valid JSON (Expecting ',' delimiter at character 9)"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"[1, 2]", "line 2 is an array, expected a JSON object"),
        (b'"text"', "line 2 is a string, expected a JSON object"),
        (b"null", "line 2 is null, expected a JSON object"),
        (b"17", "line 2 is a number, expected a JSON object"),
        (b'{"a":1}{"a":2}', "line 2 is not valid JSON (Extra data at character 8)"),
        (b'{"a":1}}', "line 2 is not valid JSON (Extra data at character 8)"),
        (b'{"a":"\t"}', "line 2 is not valid JSON (Invalid control character at"),
        (b'{"a":"\xff"}', "line 2 is not UTF-8 text (invalid start byte, byte 0xff)"),
        (b'{"a":' + b"[" * 100_000, "line 2 is nested too deeply to be read"),
    ],
)
def test_a_row_that_is_not_an_object_stops_the_job(tmp_path: Path, line: bytes, problem: str) -> None:
    assert failure(tmp_path, b'{"a": 1}\n' + line + b"\n").startswith(problem)


def test_nesting_near_the_limit_is_either_kept_or_an_error_in_words(tmp_path: Path) -> None:
    outcomes = set()
    for depth in range(850, 1010):
        row = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
        try:
            output = rewritten(tmp_path, "t.jsonl", row, {"s": [1.0]})
            outcomes.add("kept" if output == row[:-1] + b',"s":1.0}' else "altered")
        except JobError as error:
            outcomes.add("refused" if "nested too deeply" in str(error) else str(error))
    assert "kept" in outcomes
    assert outcomes <= {"kept", "refused"}


def test_an_array_named_jsonl_is_told_apart(tmp_path: Path) -> None:
    assert "line 1 is not valid JSON" in failure(tmp_path, b'[\n {"a": 1}\n]\n')


def test_a_row_over_the_limit_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_LENGTH", 1024 * 1024)
    message = failure(tmp_path, b'{"a":1}\n{"a":"' + b"x" * 1024 * 1024 + b'"}\n')
    assert message.startswith("line 2 is larger than 1 MiB")


def test_a_row_of_too_many_values_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_VALUES", 100)
    kept = b'{"a":[' + b"1," * 90 + b"1]}\n" + b'{"a":"' + b"x" * 200 + b'"}\n'
    assert rewritten(tmp_path, "t.jsonl", kept, {"s": [1.0, 1.0]}).count(b'"s":1.0') == 2
    for many in (b"[]," * 50, b"{}," * 50, b"12," * 99, b"[[[" * 40):
        assert failure(tmp_path, b'{"a":1}\n{"a":[' + many + b"1]}\n") == (
            "line 2 has more than 100 values, the most that are accepted."
        )


def test_the_limit_of_a_row_is_256_mib() -> None:
    assert text_files.MAX_ROW_LENGTH == 256 * 1024**2


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_never_written(tmp_path: Path, score: float) -> None:
    with pytest.raises(ValueError, match="clip_score"):
        rewritten(tmp_path, "t.jsonl", b"{}\n{}\n", {"clip_score": [0.5, score]})
    assert not (tmp_path / "out.t.jsonl").exists()


def test_values_must_fit_the_announced_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"{}\n")
    with open_table(path, file_type_of(path.name)) as reader:
        types = {"s": AddedType.FLOAT64, "e": AddedType.STRING}
        writer = create_table(tmp_path / "out.jsonl", file_type_of("jsonl"), reader, types)
        chunk = next(reader.chunks(1))
        with pytest.raises(ValueError, match="expected values for the columns"):
            writer.write(chunk, {"s": [1.0]})
        with pytest.raises(ValueError, match="2 values for 1 rows"):
            writer.write(chunk, {"s": [1.0, 2.0], "e": [None]})
        with pytest.raises(TypeError, match="holds numbers"):
            writer.write(chunk, {"s": ["1.0"], "e": [None]})
        with pytest.raises(TypeError, match="holds strings"):
            writer.write(chunk, {"s": [1], "e": [2.0]})
        writer.write(chunk, {"s": [1], "e": ["x"]})
        writer.close()
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"s": 1.0, "e": "x"}\n'
