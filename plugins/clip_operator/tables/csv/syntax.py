"""The marks between and around cells: what parses them, where a cell ends in a record, and how a new one is written."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from clip_operator.dialect import Dialect
from clip_operator.errors import JobError
from clip_operator.tables.file_types import FileType, TableFormat
from clip_operator.tables.json.members import json_literal
from clip_operator.tables.table import AddedValue

if TYPE_CHECKING:
    from _csv import Reader

_USUAL_DELIMITERS = {TableFormat.CSV: ",", TableFormat.TSV: "\t"}


@dataclass(frozen=True)
class Syntax:
    """How cells are written, all told.

    :param quotechar: empty where quotes are text.
    :param escapechar: empty where there is none.
    :param quotes_are_a_guess: nobody has said that quotes are quotes, and in files of this kind they often are text.
    """

    delimiter: str
    quotechar: str = '"'
    escapechar: str = ""
    quotes_are_a_guess: bool = False

    @classmethod
    def of(cls, file_type: FileType, told_by_file: str | None = None) -> Syntax:
        """Return what is known of a file.

        :param told_by_file: the delimiter that its first line names, if there is such a line.
        """
        said: Dialect = file_type.dialect
        return cls(
            said.delimiter or told_by_file or _USUAL_DELIMITERS[file_type.format],
            '"' if said.quotechar is None else said.quotechar,
            said.escapechar or "",
            quotes_are_a_guess=file_type.format is TableFormat.TSV and said.quotechar is None,
        )

    def parse(self, lines: Iterable[str]) -> Reader:
        """Return the parser of some lines."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quotechar or None,
            quoting=csv.QUOTE_MINIMAL if self.quotechar else csv.QUOTE_NONE,
            escapechar=self.escapechar or None,
            strict=True,
        )

    def body(self, record: str) -> str:
        """Return a record's text without its line ending."""
        body = record.rstrip("\r\n")
        if self.escapechar and len(body) < len(record):
            escapes = len(body) - len(body.rstrip(self.escapechar))
            body = record[: len(body) + escapes % 2]  # behind an escape, the character is the cell's
        return body

    def cell_end(self, body: str, start: int) -> int:
        """Return where the cell ends that starts there."""
        match = self._cell.match(body, start)
        return match.end() if match else start

    def cell(self, value: AddedValue) -> str:
        """Return the text of a cell.

        :raises JobError: it would need quotes or an escape, and there are none.
        """
        if value is None:
            return ""
        if isinstance(value, tuple):
            value = json_literal(value)
        if not isinstance(value, str):
            return repr(value)
        if not self._marks.search(value):
            return value
        if self.quotechar:
            return self.quoted(value)
        if not self.escapechar:
            raise JobError(
                "A value to add has a delimiter or a line break in it, which cannot be written without quotechar or "
                "escapechar: set one of them, or write the step as jsonl."
            )
        return self._marks.sub(lambda mark: self.escapechar + mark[0], value)

    def quoted(self, value: str) -> str:
        """Return the text of a cell in quotes."""
        escape, quote = self.escapechar, self.quotechar
        if escape:
            value = value.replace(escape, escape * 2)
        return quote + value.replace(quote, (escape or quote) + quote) + quote

    @cached_property
    def _cell(self) -> re.Pattern[str]:
        delimiter, quote, escape = map(re.escape, (self.delimiter, self.quotechar, self.escapechar))
        escaped = f"{escape}." if escape else "(?!)"
        plain = f"[^{delimiter}{escape}]*(?:{escaped}[^{delimiter}{escape}]*)*"
        if not quote:
            return re.compile(plain, re.DOTALL)
        inside = f"[^{quote}{escape}]*"
        return re.compile(f"{quote}{inside}(?:(?:{quote}{quote}|{escaped}){inside})*{quote}|{plain}", re.DOTALL)

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        return re.compile("[" + re.escape(self.delimiter + self.quotechar + self.escapechar) + "\r\n]")
