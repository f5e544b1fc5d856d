"""CSV in and out: records keep their quoting and line endings, and cells never shift."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import TableScan, file_type_of, open_table, text_files
from clip_operator.tables.csv import reader
from tests.tables.rewriting import Added, refusal, rewritten, scan

Table = tuple[str, list[tuple[str, str]]]

CELLS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", "00123", '"', '""', "a,b", "x\ny", "x\r\ny", "\r", " ", "\ufeff", "NaN", "0.10", "\u2028", "'", ";"]
)


def quoted(cell: str, always: bool) -> str:
    if always or any(character in cell for character in '",\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def failure(folder: Path, content: bytes, columns: list[str] | None = None) -> str:
    return refusal(folder, "t.csv", content, columns)


def parsed(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode().removeprefix("\ufeff"), newline="")))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A byte order mark or nothing, and the records with their line endings, the header first; all of full width."""
    width = draw(st.integers(1, 4))
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    header = [f"h{number}{draw(CELLS)}" for number in range(width)]
    rows = [header, *draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=6))]
    records = []
    for row in rows:
        # A single empty cell without quotes would be a blank line.
        styles = [draw(st.booleans()) or (width == 1 and not cell) for cell in row]
        records.append((",".join(map(quoted, row, styles)), ending))
    if draw(st.booleans()):
        records[-1] = (records[-1][0], "")
    return draw(st.sampled_from(["", "\ufeff"])), records


@settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables(), chunk=st.integers(1, 7), error=CELLS)
def test_only_the_new_cells_are_added(tmp_path: Path, table: Table, chunk: int, error: str) -> None:
    mark, records = table
    content = mark + "".join(text + ending for text, ending in records)
    rows = len(records) - 1
    added: Added = {"clip_score": [number / 7 for number in range(rows)], "clip_error": [error] * rows}

    output = rewritten(tmp_path, "t.csv", content.encode(), added, chunk)

    new_cells = ["clip_score,clip_error"] + [f"{number / 7!r},{quoted(error, False)}" for number in range(rows)]
    expected = mark + "".join(f"{text},{new}{ending}" for (text, ending), new in zip(records, new_cells, strict=True))
    assert output == expected.encode()
    assert [row[:-2] for row in parsed(output)] == parsed(content.encode())
    assert [row[-2:] for row in parsed(output)][1:] == [[repr(number / 7), error] for number in range(rows)]
    assert scan(tmp_path / "t.csv") == TableScan(rows, tuple(parsed(content.encode())[0]))


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables(), chunk=st.integers(1, 7), data=st.data(), value=st.none() | CELLS)
def test_replacing_touches_only_its_column(
    tmp_path: Path, table: Table, chunk: int, data: st.DataObject, value: str | None
) -> None:
    mark, records = table
    content = (mark + "".join(text + ending for text, ending in records)).encode()
    old = parsed(content)
    column = data.draw(st.integers(0, len(old[0]) - 1))
    values = [value if value is None else f"{value}{number}" for number in range(len(old) - 1)]

    output = rewritten(tmp_path, "t.csv", content, {old[0][column]: values}, chunk)

    expected = [[*row[:column], new or "", *row[column + 1 :]] for row, new in zip(old[1:], values, strict=True)]
    assert parsed(output) == [old[0], *expected]
    if old[1:] == expected:
        return
    # What stands before and behind the column's cells is the input's text, quoting and all.
    for (text, ending), row, new in zip(records[1:], old[1:], values, strict=True):
        head = ",".join([*text_cells(text)[:column], ""]) if column else ""
        tail = ",".join(["", *text_cells(text)[column + 1 :]]) if column < len(row) - 1 else ""
        assert (head + (quoted(new or "", False) or ('""' if len(row) == 1 else "")) + tail + ending).encode() in output


def text_cells(record: str) -> list[str]:
    """The raw texts of a record's cells: cut at every comma that has an even number of quotes before it."""
    cells = [""]
    for character in record:
        if character == "," and cells[-1].count('"') % 2 == 0:
            cells.append("")
        else:
            cells[-1] += character
    return cells


def test_short_rows_are_padded_so_that_no_cell_shifts(tmp_path: Path) -> None:
    content = b'a,b,c\r\n1\r\n1,2\r\n1,2,3\r\n"x"'
    output = rewritten(tmp_path, "t.csv", content, {"s": [0.5, None, 1.0, 0.25]})
    assert output == b'a,b,c,s\r\n1,,,0.5\r\n1,2,,\r\n1,2,3,1.0\r\n"x",,,0.25'


def test_short_rows_are_padded_when_a_later_cell_is_replaced(tmp_path: Path) -> None:
    assert rewritten(tmp_path, "t.csv", b"a,b,c\n1\n1,2,3\n", {"b": [0.5, 0.25]}) == b"a,b,c\n1,0.5,\n1,0.25,3\n"


def test_a_single_replaced_cell_does_not_become_a_blank_line(tmp_path: Path) -> None:
    assert rewritten(tmp_path, "t.csv", b"s\n1\n2\n", {"s": [None, 0.5]}) == b's\n""\n0.5\n'


def test_blank_lines_are_dropped_and_not_counted(tmp_path: Path) -> None:
    output = rewritten(tmp_path, "t.csv", b"\xef\xbb\xbf\n\na,b\n\n1,2\n\r\n3,4\n\n", {"s": [1.0, 2.0]})
    assert output == b"\xef\xbb\xbfa,b,s\n1,2,1.0\n3,4,2.0\n"
    assert scan(tmp_path / "t.csv") == TableScan(2, ("a", "b"))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    output = rewritten(tmp_path, "t.csv", b'\xef\xbb\xbf"a,x",b\n1,2\n', {"a,x": ["new"]})
    assert output == b'\xef\xbb\xbf"a,x",b\nnew,2\n'


def test_a_header_without_rows_gets_the_new_names(tmp_path: Path) -> None:
    assert rewritten(tmp_path, "t.csv", b"a,b", {"s": []}) == b"a,b,s"


def test_cells_are_strings_and_missing_ones_none(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'a,b\n007,"x\r\n""y"""\n,\n1\n')
    for announced in (None, ["a"], ["b"], ["nowhere"]):
        with open_table(path, file_type_of(path.name), announced) as reader:
            chunks = list(reader.chunks(2))
            assert [(chunk.first_row, len(chunk)) for chunk in chunks] == [(0, 2), (2, 1)]
            assert [chunk.column("a") for chunk in chunks] == [["007", ""], ["1"]]
            assert [chunk.column("b") for chunk in chunks] == [['x\r\n"y"', ""], [None]]
            assert chunks[0].column("nowhere") == [None, None]


def test_large_cells_are_read(tmp_path: Path) -> None:
    uri = '"data:image/png;base64,' + "A" * 5_000_000 + '"'
    output = rewritten(tmp_path, "t.csv", f"image,text\n{uri},a\n".encode(), {"s": [1.0]})
    assert output == f"image,text,s\n{uri},a,1.0\n".encode()


def test_a_chunk_ends_early_where_rows_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_operator.tables.table.CHUNK_BYTES", 100)
    path = tmp_path / "t.csv"
    path.write_text("a\n" + ("x" * 60 + "\n") * 5)
    with open_table(path, file_type_of(path.name)) as reader:
        assert [len(chunk) for chunk in reader.chunks(1000)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'a,b\n"x\ny",2\n\n1,2,3\n', "line 5 has 3 cells, but the header has 2"),
        (
            b'a,b\n1,2\n"x,2\n3,4\n',
            "the row that starts in line 3 is not valid CSV (a quote is opened and never closed)",
        ),
        (b'a,b\n"x"y,2\n', "the row that starts in line 2 is not valid CSV (',' expected after '\"')"),
        (b"a,b\r1,2\r", "the row that starts in line 1 is not valid CSV (a carriage return without a line feed"),
        (b"", "the file is empty, without even a header; write or upload it again"),
        (b"\r\n\n", "the file is empty, without even a header"),
        (b"\xef\xbb\xbf", "the file is empty, without even a header"),
        (b"a,b\n1,2\n1,\xe9\n", "line 3 is not UTF-8 text (invalid continuation byte, byte 0xe9)"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    assert failure(tmp_path, content).startswith(problem)


def test_a_row_over_the_limit_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_ROW_LENGTH", 1024 * 1024)
    message = failure(tmp_path, b'a,b\n1,2\n"never closed\n' + b"line,of,text\n" * 100_000)
    assert message.startswith("the row that starts in line 3 is larger than 1 MiB")
    assert message.endswith("Is a quote left open?")


def test_a_row_of_too_many_cells_or_lines_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_VALUES", 100)
    assert rewritten(tmp_path, "t.csv", b"a,b\n" + b"1,2\n" * 200, {"s": [1.0] * 200}).count(b",1.0\n") == 200
    for many in (b"," * 100, b'"' + b"\n" * 100 + b'"', b'"\n",,,' * 30):
        message = failure(tmp_path, b"a,b\n1,2\n" + many + b"\n")
        assert message.startswith("the row that starts in line 3 has more than 100 values")


def test_a_name_twice_in_the_header_matters_only_for_a_column_that_is_used(tmp_path: Path) -> None:
    content = b"a,b,a\n1,2,3\n"
    assert rewritten(tmp_path, "t.csv", content, {"s": [1.0]}) == b"a,b,a,s\n1,2,3,1.0\n"
    assert "names the column 'a' 2 times" in failure(tmp_path, content, ["a"])
    with pytest.raises(JobError, match="names the column 'a' 2 times"):
        rewritten(tmp_path, "t.csv", content, {"a": [1.0]})
