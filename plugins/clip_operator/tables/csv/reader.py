"""Reads records of CSV and TSV with the text of each kept: quoting, line endings and line breaks inside quotes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import NamedTuple, Self

from clip_operator.errors import JobError
from clip_operator.tables import text_files
from clip_operator.tables.csv.syntax import Syntax
from clip_operator.tables.file_types import FileType
from clip_operator.tables.json.members import json_string
from clip_operator.tables.rows import RowReader, TextChunk, in_chunks
from clip_operator.tables.table import Header, TableScan, errors_explained
from clip_operator.tables.text_files import BYTE_ORDER_MARK, TextLines, row_too_long, too_many_values, width_of

MAX_ROW_LENGTH = text_files.MAX_ROW_LENGTH // 2
"""The longest row that is accepted: the parser takes four bytes for each character of a cell, and keeps them."""

MAX_HEADER_LENGTH = 1 << 20
"""The longest header that is accepted: a short row is padded to its cells, and an object of JSON has all its names."""

_NAMES_DELIMITER = re.compile(r"sep=([^\w\r\n\"' .+-])[\r\n]+", re.IGNORECASE)


class _Record(NamedTuple):
    line: int
    text: str
    cells: list[str]


@dataclass(frozen=True)
class CsvHeader(Header):
    """What stands in front of the rows, and what it tells of how they are written.

    :param record: the record that names the columns; empty if the file has none, and the request names them.
    :param encoding: of the whole text.
    """

    record: str
    syntax: Syntax
    encoding: str

    @property
    def preamble(self) -> str:
        """What stands before the record: a byte order mark, Excel's line with the delimiter, or nothing."""
        return self.text.removesuffix(self.record)

    def to_bytes(self) -> bytes:
        """Return all of it as it stands in the file."""
        return self.text.encode(self.encoding)


class CsvChunk(TextChunk):
    """Consecutive CSV records as raw text, with the cells of the columns that were announced.

    :param first_row: the index of the first row in the table; the header is not a row.
    :param columns: the names whose cells are kept when a record is added.
    """

    def __init__(self, first_row: int, header: CsvHeader, columns: Iterable[str]) -> None:
        super().__init__(first_row, columns)
        self._header = header
        self._kept = [(header.index(name), name) for name in columns]
        self.widths: list[int] = []

    def add(self, row: _Record) -> None:
        """Append a record."""
        self.texts.append(row.text)
        self.widths.append(len(row.cells))
        self.size += len(row.text)
        for index, name in self._kept:
            self._values[name].append(_cell(row.cells, index))

    def column(self, name: str) -> list[object]:
        """Return one column's cells, each a string; None where the row is too short or the table has no such column."""
        if name in self._values:
            return list(self._values[name])
        index = self._header.index(name)
        return [_cell(cells, index) for cells in self._header.syntax.parse(self.texts)]

    def select(self, kept: Sequence[bool]) -> Self:
        selected = super().select(kept)
        selected.widths = list(compress(self.widths, kept))
        return selected

    def objects(self) -> Sequence[str]:
        """Return the records as JSON objects: the header's names in order, every cell a string."""
        keys = [json_string(name) for name in self._header.names]
        return [
            "{" + ", ".join(f"{key}: {json_string(_cell(cells, index) or '')}" for index, key in enumerate(keys)) + "}"
            for cells in self._header.syntax.parse(self.texts)
        ]


def _cell(cells: Sequence[str], index: int | None) -> str | None:
    return cells[index] if index is not None and index < len(cells) else None


class CsvReader(RowReader):
    """A CSV or TSV file. Blank lines are not rows and are dropped; a short row lacks its last cells.

    :param columns: the names whose cells chunks hold ready; each may occur only once in the header.
    """

    def header(self) -> CsvHeader:
        """Return the first record, or the names that stand for it; of several files, the first one's.

        :raises JobError: if there is none, it cannot be read, or it names an announced column twice.
        """
        if not self.joined:
            return self._header_and_rows()[0]
        with errors_explained(self.file_names[0]):
            return self._header_and_rows()[0]

    def scan(self) -> TableScan:
        """Parse every record and count the rows.

        :raises JobError: at the first record that is not CSV or has more cells than the header.
        """
        header, rows = self._rows()
        return TableScan(sum(1 for _ in rows), header.names)

    def chunks(self, rows: int, segment_rows: int | None = None) -> Iterator[CsvChunk]:
        header, records = self._rows()
        yield from in_chunks(records, rows, segment_rows, lambda first_row: CsvChunk(first_row, header, self._columns))

    def _rows(self) -> tuple[CsvHeader, Iterator[_Record]]:
        if not self.joined:
            return self._header_and_rows()
        header = self.header()
        return header, self._of_all_files(lambda path: self._rows_like(header, path))

    def _header_and_rows(self) -> tuple[CsvHeader, Iterator[_Record]]:
        header, rows = header_and_rows(self._lines(self._paths[0]), self.file_type)
        for name in self._columns:
            header.index(name)
        if self.joined:
            self._check_said(header)
        return header, _first_of_all(rows, header) if self.fragment.first and not header.record else rows

    def _lines(self, path: Path) -> TextLines:
        return TextLines(path, self.file_type.compression, self.file_type.dialect.encoding)

    def _check_said(self, header: CsvHeader) -> None:
        """Of files that make up one table, each shard reads some: what is only told by a file is told to one shard."""
        if self.file_type.dialect.encoding is None and header.encoding != "utf-8":
            raise JobError(f"its encoding is {header.encoding}: set encoding to that which all the files have")
        if header.syntax != Syntax.of(self.file_type):
            raise JobError(
                f"its first line names the delimiter {header.syntax.delimiter!r}: set delimiter to that which all the "
                "files have"
            )

    def _rows_like(self, expected: CsvHeader, path: Path) -> Iterator[_Record]:
        """Yield the rows of one of several files, each with a line ending, so that others can stand behind it."""
        header, rows = header_and_rows(self._lines(path), self.file_type)
        if header.names != expected.names:
            raise JobError(
                f"its header is not that of {self.file_names[0]}: {_difference(header.names, expected.names)}; "
                "files that make up one table need the same columns in the same order"
            )
        if (header.encoding, header.syntax) != (expected.encoding, expected.syntax):
            raise JobError(
                f"its encoding or delimiter ({header.encoding}, {header.syntax.delimiter!r}) is not that of "
                f"{self._paths[0].name} ({expected.encoding}, {expected.syntax.delimiter!r}); files that make up one "
                "table need the same"
            )
        for row in rows:
            yield row._replace(text=with_line_break(row.text, like=header.record))


def header_and_rows(lines: TextLines, file_type: FileType) -> tuple[CsvHeader, Iterator[_Record]]:
    """Return the first record of a CSV text, and the others as they are needed.

    :raises JobError: there is none; or here or later, at the first record that is not CSV or has more cells than the
        header.
    """
    texts = iter(lines)
    first = next(texts, "")
    mark = BYTE_ORDER_MARK if first.startswith(BYTE_ORDER_MARK) else ""
    first = first.removeprefix(mark)
    named = _NAMES_DELIMITER.fullmatch(first)
    syntax = Syntax.of(file_type, named and named[1])
    if named and syntax.delimiter != named[1]:
        raise JobError(f"its first line says that {named[1]!r} is its delimiter, and not {syntax.delimiter!r}")
    preamble = mark + first if named else mark
    records = _records(texts if named else chain([first], texts), syntax, 1 if named else 0)
    if names := file_type.dialect.column_names:
        header = CsvHeader(preamble, names, "", syntax, lines.encoding)
        return header, _rows(records, header)
    record = next(records, None)
    if record is None:
        raise JobError("the file is empty, without even a header; write or upload it again, or leave it out")
    if len(record.text) > MAX_HEADER_LENGTH:
        raise JobError(
            f"the header is larger than {MAX_HEADER_LENGTH >> 20} MiB, the largest that is accepted, for it may be "
            "written with every row. Is a quote left open?"
        )
    header = CsvHeader(preamble + record.text, tuple(record.cells), record.text, syntax, lines.encoding)
    return header, _rows(records, header)


def _records(texts: Iterator[str], syntax: Syntax, lines_before: int) -> Iterator[_Record]:
    # The limit is the whole process's, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_LENGTH))
    lines: list[str] = []
    reader = syntax.parse(_fed(texts, lines, syntax.delimiter, lines_before))
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _not_csv(lines_before + reader.line_num - len(lines) + 1, error, syntax) from error
        if cells is None:
            return
        text = lines[0] if len(lines) == 1 else "".join(lines)
        line = lines_before + reader.line_num - len(lines) + 1
        lines.clear()
        if cells:
            yield _Record(line, text, cells)


def with_line_break(text: str, like: str = "") -> str:
    """Return a record that others can stand behind: it ends with a line feed, or with what another record ends with."""
    if text.endswith("\n"):
        return text
    if text.endswith("\r"):
        return text + "\n"
    return text + (like[len(like.rstrip("\r\n")) :] or "\n")


def _rows(records: Iterator[_Record], header: CsvHeader) -> Iterator[_Record]:
    width = len(header.names)
    doubtful = header.syntax.quotes_are_a_guess
    for record in records:
        if len(record.cells) > width:
            if header.record:
                raise JobError(f"line {record.line} has {len(record.cells)} cells, but the header has {width}")
            raise JobError(f"line {record.line} has {len(record.cells)} cells, but column_names are {width}")
        if doubtful:
            _check_quotes(record, width, header.syntax.delimiter)
        yield record


def _check_quotes(record: _Record, width: int, delimiter: str) -> None:
    """Raise :class:`JobError` if a quote seems to be text, and to have made one cell of several, or of several rows."""
    is_suspect = len(record.cells) < width or "\n" in record.text[:-1]
    if is_suspect and any(delimiter in cell for cell in record.cells):
        raise JobError(
            f"the row that starts in line {record.line} has a quoted cell with a delimiter in it, and is short or goes "
            "over several lines: quotes may be text in this file. Set quotechar to 'none' if they are, else to '\"'"
        )


def _first_of_all(rows: Iterator[_Record], header: CsvHeader) -> Iterator[_Record]:
    """Yield the rows, of which the first shows whether they are what the names are for."""
    for row in rows:
        if len(row.cells) != len(header.names):
            raise JobError(
                f"line {row.line}, the first row, has {len(row.cells)} cells, but column_names are "
                f"{len(header.names)}. Is {header.syntax.delimiter!r} the delimiter?"
            )
        yield row
        break
    yield from rows


def _fed(lines: Iterator[str], remembered: list[str], delimiter: str, lines_before: int) -> Iterator[str]:
    """Yield the lines for the parser, each also added to `remembered`, which the caller empties after every record."""
    length = values = 0
    width = 1
    for number, line in enumerate(lines, lines_before + 1):
        if not remembered:
            length, values, width = 0, 0, 1
        length += len(line)
        values += line.count(delimiter) + 1
        width = max(width, width_of(line))
        remembered.append(line)
        if length * width > MAX_ROW_LENGTH or values > text_files.MAX_ROW_VALUES:
            place, hint = f"the row that starts in line {number - len(remembered) + 1}", "Is a quote left open?"
            too_long = length * width > MAX_ROW_LENGTH
            raise row_too_long(place, hint, MAX_ROW_LENGTH) if too_long else too_many_values(place, hint)
        yield line


def _difference(names: Sequence[str], expected: Sequence[str]) -> str:
    """Say where two headers differ, and not what they name: either file may be something else than a table."""
    if len(names) != len(expected):
        return f"it names {len(names):,} columns instead of {len(expected):,}"
    pairs = enumerate(zip(names, expected, strict=True), 1)
    return f"its column {next(number for number, (name, wanted) in pairs if name != wanted):,} has another name"


def _not_csv(line: int, error: csv.Error, syntax: Syntax) -> JobError:
    problem = str(error)
    if "new-line" in problem:
        problem = "a carriage return without a line feed stands outside quotes"
    elif "unexpected end" in problem:
        problem = "a quote is opened and never closed"
    hint = ". If quotes are text in this file, set quotechar to 'none'" if syntax.quotes_are_a_guess else ""
    return JobError(f"the row that starts in line {line} is not valid CSV ({problem}){hint}")
