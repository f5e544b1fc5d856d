"""Reads CSV records with the text of each kept: quoting, line endings and line breaks inside quotes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from clip_operator.errors import JobError
from clip_operator.tables import table, text_files
from clip_operator.tables.file_types import FileType
from clip_operator.tables.json_members import json_string
from clip_operator.tables.text_files import BYTE_ORDER_MARK, excerpt, read_lines, row_too_long, too_many_values
from clip_operator.tables.text_table import TextReader, in_chunks


class _Record(NamedTuple):
    line: int
    text: str
    cells: list[str]


@dataclass(frozen=True)
class Header:
    """The first record of a CSV file; without text and names if the file has no record at all."""

    text: str
    names: tuple[str, ...]

    def index(self, name: str) -> int | None:
        """The position of a column, None if there is none.

        :raises JobError: if several columns have the name.
        """
        if self.names.count(name) > 1:
            raise JobError(
                f"The CSV header names the column {name!r} {self.names.count(name)} times; rename all but one."
            )
        return self.names.index(name) if name in self.names else None


class CsvChunk:
    """Consecutive CSV records as raw text, with the cells of the columns that were announced.

    :param first_row: the index of the first row in the table; the header is not a row.
    :param columns: the names whose cells are kept when a record is added.
    """

    def __init__(self, first_row: int, header: Header, columns: Iterable[str]) -> None:
        self._first_row = first_row
        self._header = header
        self._kept = [(header.index(name), name) for name in columns]
        self._values: dict[str, list[object]] = {name: [] for name in columns}
        self.texts: list[str] = []
        self.widths: list[int] = []
        self.size = 0

    @property
    def first_row(self) -> int:
        """The index of the first row in the table, from 0."""
        return self._first_row

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, row: _Record) -> None:
        """Append a record."""
        self.texts.append(row.text)
        self.widths.append(len(row.cells))
        self.size += len(row.text)
        for index, name in self._kept:
            self._values[name].append(_cell(row.cells, index))

    def column(self, name: str) -> list[object]:
        """The cells of one column, each a string; None where the row is too short or the table has no such column."""
        if name in self._values:
            return list(self._values[name])
        index = self._header.index(name)
        return [_cell(cells, index) for cells in csv.reader(self.texts, strict=True)]

    def objects(self) -> Sequence[str]:
        """The records as JSON objects: the header's names in order, every cell a string."""
        keys = [json_string(name) for name in self._header.names]
        return [
            "{" + ", ".join(f"{key}: {json_string(_cell(cells, index) or '')}" for index, key in enumerate(keys)) + "}"
            for cells in csv.reader(self.texts, strict=True)
        ]


def _cell(cells: Sequence[str], index: int | None) -> str | None:
    return cells[index] if index is not None and index < len(cells) else None


class CsvReader(TextReader):
    """A CSV file with a header. Blank lines are not rows and are dropped; a short row lacks its last cells.

    :param columns: the names whose cells chunks hold ready; each may occur only once in the header.
    """

    def __init__(self, path: Path, file_type: FileType, columns: Sequence[str] | None) -> None:
        super().__init__(path, file_type, columns)
        # The limit is the whole process's, so it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), text_files.MAX_ROW_LENGTH))

    def header(self) -> Header:
        """The first record.

        :raises JobError: if it cannot be read, or it names an announced column twice.
        """
        return self._header_of(self._records())

    def scan(self) -> table.TableScan:
        """Parse every record and count the rows.

        :raises JobError: at the first record that is not CSV or has more cells than the header.
        """
        records = self._records()
        header = self._header_of(records)
        return table.TableScan(sum(1 for _ in _rows(records, header)), header.names)

    def chunks(self, rows: int) -> Iterator[CsvChunk]:
        """All rows in order, at most `rows` in a chunk.

        :raises JobError: at the first record that is not CSV or has more cells than the header.
        """
        records = self._records()
        header = self._header_of(records)
        yield from in_chunks(_rows(records, header), rows, lambda first_row: CsvChunk(first_row, header, self._columns))

    def _header_of(self, records: Iterator[_Record]) -> Header:
        first = next(records, None)
        header = Header(first.text, tuple(first.cells)) if first else Header("", ())
        for name in self._columns:
            header.index(name)
        return header

    def _records(self) -> Iterator[_Record]:
        """All records, the header first, with a byte order mark left on its text."""
        lines: list[str] = []
        reader = csv.reader(_fed(read_lines(self._path, self._file_type.gzip), lines), strict=True)
        mark = ""
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise _not_csv(reader.line_num - len(lines) + 1, error, lines) from error
            if cells is None:
                return
            text = lines[0] if len(lines) == 1 else "".join(lines)
            line = reader.line_num - len(lines) + 1
            lines.clear()
            if line == 1 and text.startswith(BYTE_ORDER_MARK):
                mark = BYTE_ORDER_MARK
            if cells:
                yield _Record(line, mark + text.removeprefix(mark), cells)
                mark = ""


def _rows(records: Iterator[_Record], header: Header) -> Iterator[_Record]:
    width = len(header.names)
    for record in records:
        if len(record.cells) > width:
            raise JobError(
                f"line {record.line} has {len(record.cells)} cells, but the header has {width}: {excerpt(record.text)}"
            )
        yield record


def _fed(lines: Iterator[str], remembered: list[str]) -> Iterator[str]:
    """The lines for the parser, each also added to `remembered`, which the caller empties after every record."""
    length = values = 0
    for number, line in enumerate(lines, 1):
        if not remembered:
            length = values = 0
        length += len(line)
        values += line.count(",") + 1
        remembered.append(line)
        if length > text_files.MAX_ROW_LENGTH or values > text_files.MAX_ROW_VALUES:
            error = row_too_long if length > text_files.MAX_ROW_LENGTH else too_many_values
            raise error(f"the row that starts in line {number - len(remembered) + 1}", "Is a quote left open?")
        yield line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _not_csv(line: int, error: csv.Error, lines: Sequence[str]) -> JobError:
    problem = str(error)
    if "new-line" in problem:
        problem = "a carriage return without a line feed stands outside quotes"
    elif "unexpected end" in problem:
        problem = "a quote is opened and never closed"
    return JobError(f"the row that starts in line {line} is not valid CSV ({problem}): {excerpt(''.join(lines[:3]))}")
