"""Reads JSON Lines: one object a line, each with its own white space and line ending kept."""

from __future__ import annotations

from collections.abc import Iterator

from clip_operator.errors import JobError
from clip_operator.tables.json_members import WHITESPACE
from clip_operator.tables.json_reader import JsonReader, JsonRow, parse_object
from clip_operator.tables.text_files import BYTE_ORDER_MARK, read_lines


class JsonlReader(JsonReader):
    """One JSON object a line. Blank lines are not rows and are dropped."""

    def _rows(self) -> Iterator[JsonRow]:
        mark = ""
        for number, line in enumerate(read_lines(self._path, self._file_type.gzip), 1):
            if number == 1 and line.startswith(BYTE_ORDER_MARK):
                mark, line = BYTE_ORDER_MARK, line[1:]
            from_object = line.lstrip(WHITESPACE)
            if not from_object:
                continue
            text = from_object.rstrip(WHITESPACE)
            before = mark + line[: len(line) - len(from_object)]
            mark = ""
            yield JsonRow(before, text, from_object[len(text) :], self._parse(text, number))

    def _parse(self, text: str, number: int) -> dict[str, object]:
        try:
            return parse_object(text, f"line {number}")
        except JobError as error:
            if number == 1 and text.startswith("["):
                raise JobError(f"{error}. If the file is one JSON array of objects, name it .json") from error
            raise
