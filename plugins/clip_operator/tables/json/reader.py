"""Rows that are JSON objects, in lines or in one array: the scan, the chunks, and what a chunk can tell."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from clip_operator.errors import JobError
from clip_operator.tables import table
from clip_operator.tables.json.members import parse
from clip_operator.tables.text_files import check_values, excerpt
from clip_operator.tables.text_table import TextReader, in_chunks

MAX_COLUMN_NAMES = 10_000
"""How many field names a scan remembers, so that rows keyed by their own ids do not fill the memory."""

_KINDS = {str: "a string", list: "an array", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}


class JsonRow(NamedTuple):
    """One object and the text around it; all rows' three texts in order are the whole file."""

    before: str
    text: str
    after: str
    fields: dict[str, object]


class JsonChunk:
    """Consecutive JSON objects as raw text, with the values of the columns that were announced.

    :param first_row: the index of the first row in the table.
    :param columns: the names whose values are kept when a row is added.
    """

    def __init__(self, first_row: int, columns: Iterable[str]) -> None:
        self._first_row = first_row
        self._values: dict[str, list[object]] = {name: [] for name in columns}
        self.before: list[str] = []
        self.texts: list[str] = []
        self.after: list[str] = []
        self.size = 0

    @property
    def first_row(self) -> int:
        """The index of the first row in the table, from 0."""
        return self._first_row

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, row: JsonRow) -> None:
        """Append a row."""
        self.before.append(row.before)
        self.texts.append(row.text)
        self.after.append(row.after)
        self.size += len(row.text)
        for name, values in self._values.items():
            values.append(row.fields.get(name))

    def column(self, name: str) -> list[object]:
        """The values of one field; None where it is absent or null. Of a key that occurs twice, the last value."""
        if name in self._values:
            return list(self._values[name])
        return [parse_object(text, f"row {row}").get(name) for row, text in enumerate(self.texts, self._first_row)]

    def objects(self) -> Sequence[str]:
        """The raw texts of the objects."""
        return self.texts

    def select(self, kept: Sequence[bool]) -> JsonChunk:
        """The rows at which ``kept``, which has a value for each row, is true."""
        selected = JsonChunk(self._first_row, ())
        selected._values = {name: list(compress(values, kept)) for name, values in self._values.items()}
        for texts, all_texts in (
            (selected.before, self.before),
            (selected.texts, self.texts),
            (selected.after, self.after),
        ):
            texts.extend(compress(all_texts, kept))
        selected.size = sum(map(len, selected.texts))
        return selected


class JsonReader(TextReader, ABC):
    """A file of JSON objects. A scan reports the announced columns past ``MAX_COLUMN_NAMES`` too."""

    @abstractmethod
    def _rows(self) -> Iterator[JsonRow]:
        """One pass over the file."""

    def scan(self) -> table.TableScan:
        """Parse every row, count them and collect their field names.

        :raises JobError: at the first row that is not a JSON object, or text that cannot be read.
        """
        rows = 0
        # A dictionary is a set that remembers the order.
        names: dict[str, None] = {}
        for row in self._rows():
            rows += 1
            if not row.fields.keys() <= names.keys():
                self._remember(row.fields, names)
        return table.TableScan(rows, tuple(names))

    def _remember(self, fields: Iterable[str], names: dict[str, None]) -> None:
        for name in fields:
            if len(names) < MAX_COLUMN_NAMES or name in self._columns:
                names[name] = None

    def chunks(self, rows: int, segment_rows: int | None = None) -> Iterator[JsonChunk]:
        """All rows in order, at most `rows` in a chunk.

        :raises JobError: at the first row that is not a JSON object, or text that cannot be read.
        """
        return in_chunks(self._rows(), rows, segment_rows, lambda first_row: JsonChunk(first_row, self._columns))


def parse_object(text: str, place: str) -> dict[str, object]:
    """The fields of a text that is one JSON object and nothing else.

    :param place: where the text stands, for the message.
    :raises JobError: if it is anything else.
    """
    check_values(text, place)
    try:
        value, end = parse(text)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except json.JSONDecodeError as error:
        raise not_valid(place, error, text) from error
    except RecursionError as error:
        raise nested_too_deeply(place, text) from error
    if not isinstance(value, dict):
        raise not_an_object(place, value, text)
    return value


def not_valid(place: str, error: json.JSONDecodeError, text: str, start: int = 0) -> JobError:
    """The error for broken JSON in the row that begins at `start`."""
    problem = f"{error.msg.removesuffix(' at')} at character {error.pos - start + 1}"
    return JobError(f"{place} is not valid JSON ({problem}): {excerpt(text[start : start + 100])}")


def nested_too_deeply(place: str, text: str) -> JobError:
    """The error for arrays or objects inside one another without end."""
    return JobError(f"{place} is nested too deeply to be read: {excerpt(text)}")


def not_an_object(place: str, value: object, text: str) -> JobError:
    """The error for a row that is some other JSON value."""
    return JobError(f"{place} is {kind_of(value)}, expected a JSON object: {excerpt(text)}")


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    return "null" if value is None else _KINDS[type(value)]
