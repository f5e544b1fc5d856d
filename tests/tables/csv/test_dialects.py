"""CSV and TSV as others write them: other marks, other encodings, no header; the old cells stay as they are."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.dialect import Dialect
from clip_operator.errors import JobError
from clip_operator.tables import (
    WHOLE,
    AddedType,
    FileType,
    Fragment,
    create_table,
    cut_text,
    file_type_of,
    header_of,
    open_table,
)

LATIN = "abé ß0,;|\t\"'\\"
CELLS = st.text(st.sampled_from(LATIN + "\n"), max_size=6) | st.sampled_from(["", "NA", "x\ny", '""', "\\N", "a\tb\\"])


class Table(NamedTuple):
    """A file that Python's own writer has written, and how it is to be read."""

    name: str
    dialect: Dialect
    preamble: str
    records: list[str]
    rows: list[list[str]]
    ending: str
    format: dict[str, Any]

    @property
    def encoding(self) -> str:
        said = self.dialect.encoding or "utf-8"
        return "utf-16-le" if said == "utf-16" else said

    @property
    def content(self) -> bytes:
        return (self.preamble + "".join(self.records)).encode(self.encoding)

    @property
    def file_type(self) -> FileType:
        return file_type_of(self.name, self.dialect)

    def parsed(self, content: bytes) -> list[list[str]]:
        text = content.decode(self.encoding).removeprefix(self.preamble)
        return list(csv.reader(io.StringIO(text, newline=""), **self.format))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    delimiter = draw(st.sampled_from(",;|\t\x01"))
    quote = draw(st.sampled_from(['"', "'", "none"]))
    escape = draw(st.sampled_from([None, "\\"]))
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    encoding = draw(st.sampled_from([None, "utf-16", "utf-16-le", "utf-16-be", "cp1252", "gb18030"]))
    form: dict[str, Any] = {"delimiter": delimiter, "escapechar": escape, "strict": True}
    if quote == "none":
        form |= {"quoting": csv.QUOTE_NONE}
    else:
        form |= {"quotechar": quote, "doublequote": escape is None or draw(st.booleans())}
    cells = CELLS
    if quote == "none":  # without an escape there is no way to write these
        banned = [] if escape else [delimiter, "\n"]
        cells = cells.filter(lambda cell: not any(mark in cell for mark in banned))
        if not escape:
            form |= {"quotechar": None}
    if encoding == "gb18030":
        cells = cells.map(lambda cell: cell.replace("a", "図"))
    width = draw(st.integers(2, 3))
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6))
    header = [f"h{number}" for number in range(width)]
    has_header = draw(st.booleans())
    records = []
    for row in [header, *rows] if has_header else rows:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator=ending, **form).writerow(row)
        records.append(text.getvalue())
    names_delimiter = draw(st.booleans()) and delimiter != "\x01"
    mark = "\ufeff" if encoding == "utf-16" or (encoding is None and draw(st.booleans())) else ""
    dialect = Dialect(
        None if names_delimiter and draw(st.booleans()) else delimiter,
        "" if quote == "none" else quote,
        escape,
        encoding,
        () if has_header else tuple(header),
    )
    preamble = mark + (f"sep={delimiter}{ending}" if names_delimiter else "")
    return Table(draw(st.sampled_from(["t.csv", "t.tsv"])), dialect, preamble, records, rows, ending, form)


def scored(path: Path, file_type: FileType, fragment: Fragment = WHOLE, first: int = 0, error: str = "") -> bytes:
    """The bytes of a file, or a span of one, with a score and a text for every row."""
    target = path.with_name("out")
    types = {"score": AddedType.FLOAT64, "why": AddedType.STRING}
    with (
        open_table(path, file_type, ["h1"], fragment=fragment) as reader,
        create_table(target, file_type, reader, types, fragment=fragment) as writer,
    ):
        for chunk in reader.chunks(2):
            numbers = range(first + chunk.first_row, first + chunk.first_row + len(chunk))
            writer.write(chunk, {"score": [number / 7 for number in numbers], "why": [error] * len(chunk)})
    return target.read_bytes()


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables(), error=CELLS)
def test_only_the_new_cells_are_added(tmp_path: Path, table: Table, error: str) -> None:
    path = tmp_path / table.name
    path.write_bytes(table.content)
    delimiter, names = table.format["delimiter"], [] if table.dialect.column_names else [["score", "why"]]

    new = [*names, *([repr(number / 7), "no image"] for number in range(len(table.rows)))]
    expected = table.preamble
    for record, cells in zip(table.records, new, strict=True):
        expected += delimiter.join([record.removesuffix(table.ending), *cells]) + table.ending
    assert scored(path, table.file_type, error="no image") == expected.encode(table.encoding)

    if table.dialect.quotechar != "" or table.dialect.escapechar:
        new = [*names, *([repr(number / 7), error] for number in range(len(table.rows)))]
        rows = [old + added for old, added in zip(table.parsed(table.content), new, strict=True)]
        assert table.parsed(scored(path, table.file_type, error=error)) == rows
    with open_table(path, table.file_type) as reader:
        assert [value for chunk in reader.chunks(3) for value in chunk.column("h1")] == [row[1] for row in table.rows]


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables(), rows=st.integers(1, 4))
def test_spans_are_written_as_the_whole_is(tmp_path: Path, table: Table, rows: int) -> None:
    path = tmp_path / table.name
    path.write_bytes(table.content)
    whole = scored(path, table.file_type)
    cuts = cut_text(io.BytesIO(table.content), table.file_type, rows)
    header = header_of(io.BytesIO(table.content), table.file_type)

    output = b""
    for number, span in enumerate(cuts.spans):
        path.write_bytes(header + table.content[span.start : span.stop])
        fragment = Fragment(first=number == 0, last=number == len(cuts.spans) - 1)
        output += scored(path, table.file_type, fragment, first=span.first_row or 0)

    assert output == whole
    assert [span.rows for span in cuts.spans[:-1]] == [rows] * (len(cuts.spans) - 1)


def refused(folder: Path, name: str, content: bytes, **said: Any) -> str:
    (folder / name).write_bytes(content)
    with pytest.raises(JobError) as caught, open_table(folder / name, file_type_of(name, Dialect(**said))) as reader:
        reader.scan()
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b'a\tb\n"Hello\tworld\nBye"\tmoon\n',  # two rows, whose quotes are text
        b'a\tb\tc\n"Hello\tworld"\tx\n',
    ],
)
def test_rows_of_tsv_are_not_joined_by_quotes_that_may_be_text(tmp_path: Path, content: bytes) -> None:
    assert "quotes may be text in this file. Set quotechar to 'none' if they are" in refused(tmp_path, "t.tsv", content)
    for quotechar, rows in (("", content.count(b"\n") - 1), ('"', 1)):
        with open_table(tmp_path / "t.tsv", file_type_of("t.tsv", Dialect(quotechar=quotechar))) as reader:
            assert reader.scan().rows == rows


def test_a_quote_that_is_text_is_refused_with_what_to_set(tmp_path: Path) -> None:
    for row in (b'"never" closed\tx\n', b'"never closed\tx\n'):
        assert "set quotechar to 'none'" in refused(tmp_path, "t.tsv", b"a\tb\n" + row)


def test_names_must_be_those_of_all_columns(tmp_path: Path) -> None:
    problem = refused(tmp_path, "t.tsv", b"text,url\n", column_names=("text", "url"))
    assert problem == "line 1, the first row, has 1 cells, but column_names are 2. Is '\\t' the delimiter?"
    problem = refused(tmp_path, "t.tsv", b"text\turl\tmore\n", column_names=("text", "url"))
    assert problem == "line 1 has 3 cells, but column_names are 2"


def test_a_file_without_header_and_rows_is_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").touch()
    assert scored(tmp_path / "t.tsv", file_type_of("t.tsv", Dialect(column_names=("h0", "h1")))) == b""


@pytest.mark.parametrize(
    ("content", "said", "problem"),
    [
        (
            "a\n".encode("utf-16-le"),
            "utf-16",
            "the text has no byte order mark; let encoding be utf-16-le",
        ),
        ("a\n".encode("utf-16"), "cp1252", "the text begins with the byte order mark of utf-16-le, so it is not"),
        ("\ufeffa\n".encode(), "cp1252", "the text begins with the byte order mark of utf-8, so it is not"),
        ("\ufeffa\n".encode("utf-16-be"), "utf-16-le", "the text begins with the byte order mark of utf-16-be"),
        ("é\n".encode("cp1252"), None, "line 1 is not UTF-8 text (invalid continuation byte, byte 0xe9)"),
        (b"a\n\x81\n", "cp1252", "line 2 is not CP1252 text"),
        ("\ufeffa\n".encode("utf-16-le") + b"\x00\xd8\n\x00", None, "the text behind line 1 is not utf-16-le"),
        (b"a\n\x1b$B\x1b(B\n", "iso2022_jp", "line 2 has a character that iso2022_jp can write in several ways"),
    ],
)
def test_another_encoding_is_refused(tmp_path: Path, content: bytes, said: str | None, problem: str) -> None:
    assert refused(tmp_path, "t.csv", content, encoding=said).startswith(problem)


def test_utf_16_with_a_mark_needs_no_parameter_and_lines_are_told_apart_in_it(tmp_path: Path) -> None:
    text = "\ufeffh0,h1\r\nĊ,ਊ\r\n上\u0a0d,🎉\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode("utf-16-be"))
    output = scored(tmp_path / "t.csv", file_type_of("t.csv")).decode("utf-16-be")
    assert output == "\ufeffh0,h1,score,why\r\nĊ,ਊ,0.0,\r\n上\u0a0d,🎉,0.14285714285714285,\r\n"


def test_an_escaped_carriage_return_at_the_end_of_a_row_is_its_cells(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"h0,h1\r\nx,a\\\r\ny,b\\\\\r\n")
    output = scored(tmp_path / "t.csv", file_type_of("t.csv", Dialect(quotechar="", escapechar="\\")))
    assert output == b"h0,h1,score,why\r\nx,a\\\r,0.0,\ny,b\\\\,0.14285714285714285,\r\n"


def test_what_the_encoding_has_no_place_for_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"h0,h1\na,b\n")
    with pytest.raises(JobError, match=r"'図', in a value or a name to add, cannot be written in cp1252, the encoding"):
        scored(tmp_path / "t.csv", file_type_of("t.csv", Dialect(encoding="cp1252")), error="図")


def test_what_needs_quotes_is_refused_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes(b"h0\th1\na\tb\n")
    with pytest.raises(JobError, match="cannot be written without quotechar or escapechar"):
        scored(tmp_path / "t.tsv", file_type_of("t.tsv", Dialect(quotechar="")), error="a\tb")


def test_a_first_line_that_names_another_delimiter_is_refused(tmp_path: Path) -> None:
    problem = refused(tmp_path, "t.csv", b"sep=;\na;b\n", delimiter="|")
    assert problem == "its first line says that ';' is its delimiter, and not '|'"


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (b"sep=;\na;b\n", "(utf-8, ';') is not that of 0.csv (utf-8, ',')"),
        ("\ufeffa,b\n".encode("utf-16-le"), "(utf-16-le, ',') is not that of 0.csv (utf-8, ',')"),
    ],
)
def test_files_of_one_table_are_written_alike(tmp_path: Path, second: bytes, problem: str) -> None:
    paths = [tmp_path / "0.csv", tmp_path / "1.csv"]
    paths[0].write_bytes(b"a,b\n1,2\n")
    paths[1].write_bytes(second)
    with pytest.raises(JobError) as caught, open_table(paths, file_type_of("t.csv")) as reader:
        reader.scan()
    assert str(caught.value).startswith(f"1.csv: its encoding or delimiter {problem}")
    with pytest.raises(JobError, match=r"1.csv: its (encoding is utf-16-le|first line names the delimiter ';'): set "):
        open_table(paths[1:], file_type_of("t.csv")).scan()
