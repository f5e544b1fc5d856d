"""Writes CSV records with added cells and leaves the rest of each record's text as it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from clip_operator.tables.added_columns import checked_columns
from clip_operator.tables.csv.reader import CsvChunk, CsvReader, with_line_break
from clip_operator.tables.file_types import FileType
from clip_operator.tables.fragment import Fragment
from clip_operator.tables.table import AddedType, AddedValue, Chunk
from clip_operator.tables.text_writer import TextWriter

_CELL = re.compile(r'"[^"]*(?:""[^"]*)*"|[^,]*')
_NEEDS_QUOTES = re.compile(r'[",\r\n]')


class CsvWriter(TextWriter):
    """CSV to CSV. New cells go behind the last column; a short row is padded first, so that no cell shifts.

    :param like: the input, whose header is written with the names of the new columns.
    :param fragment: the place of its rows in the output; only the first fragment has the header.
    :raises JobError: if the input's header cannot be read or names an added column twice.
    """

    def __init__(
        self, path: Path, file_type: FileType, added: Mapping[str, AddedType], like: CsvReader, fragment: Fragment
    ) -> None:
        header = like.header()
        self._added = dict(added)
        self._width = len(header.names)
        self._indices = [header.index(name) for name in added]
        super().__init__(path, file_type)
        if not fragment.first:
            return
        new_names = [_cell_text(name) for name, index in zip(added, self._indices, strict=True) if index is None]
        text = with_line_break(header.text) if like.joined else header.text
        body = text.rstrip("\r\n")
        self._append(",".join([body, *new_names]) + text[len(body) :])

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        if not isinstance(chunk, CsvChunk):
            raise TypeError(f"a {type(chunk).__name__} does not come from the table that this one is like")
        columns = checked_columns(self._added, added, len(chunk))
        if not columns:
            self._append("".join(chunk.texts))
            return
        rows = zip(*([_cell_text(value) for value in values] for values in columns), strict=True)
        records = zip(chunk.texts, chunk.widths, rows, strict=True)
        self._append("".join([self._with_cells(text, width, cells) for text, width, cells in records]))

    def _with_cells(self, text: str, width: int, cells: Sequence[str]) -> str:
        body = text.rstrip("\r\n")
        ending = text[len(body) :]
        body += "," * (self._width - width)
        for index, cell in zip(self._indices, cells, strict=True):
            body = f"{body},{cell}" if index is None else _replaced(body, index, cell)
        # A record of one empty cell would be a blank line, which is no record.
        return (body or '""') + ending


def _replaced(body: str, index: int, cell: str) -> str:
    start = 0
    for _ in range(index):
        start = _cell_end(body, start) + 1
    return body[:start] + cell + body[_cell_end(body, start) :]


def _cell_end(body: str, start: int) -> int:
    match = _CELL.match(body, start)
    return match.end() if match else start


def _cell_text(value: AddedValue) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    return '"' + value.replace('"', '""') + '"' if _NEEDS_QUOTES.search(value) else value
