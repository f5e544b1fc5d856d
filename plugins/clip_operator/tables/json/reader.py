"""Rows that are JSON objects, in lines or in one array: the scan, the chunks, and what a chunk can tell."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import NamedTuple, Self

from clip_operator.errors import JobError
from clip_operator.tables.json.members import MemberWriter, parse
from clip_operator.tables.paths import MOST_PATHS, field_of, has_field, path_of, texts_in
from clip_operator.tables.rows import RowReader, TextChunk, in_chunks
from clip_operator.tables.table import TableScan
from clip_operator.tables.text_files import check_values

FILE_NAME = "file_name"
"""What COCO calls the place of an image."""

MAX_COLUMN_NAMES = 10_000
"""How many field names a scan remembers, so that rows keyed by their own ids do not fill the memory."""

_ROWS_LOOKED_INTO = 16  # for paths that might be meant

_LONGEST_NAME = 1024  # of one that is remembered without having been announced

_KINDS = {str: "a string", list: "an array", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}


class JsonRow(NamedTuple):
    """One object and the text around it; all rows' three texts in order are the whole file.

    :param joined: a field more than the text has, from elsewhere in the file, as a JSON literal: COCO's ``file_name``.
    """

    before: str
    text: str
    after: str
    fields: dict[str, object]
    joined: str | None = None


class JsonChunk(TextChunk):
    """Consecutive JSON objects as raw text, with the values of the columns that were announced.

    :param first_row: the index of the first row in the table.
    :param columns: the names whose values are kept when a row is added.
    """

    def __init__(self, first_row: int, columns: Iterable[str]) -> None:
        super().__init__(first_row, columns)
        self.before: list[str] = []
        self.after: list[str] = []
        self._joined: list[str | None] = []

    def add(self, row: JsonRow) -> None:
        """Append a row."""
        self.before.append(row.before)
        self.texts.append(row.text)
        self.after.append(row.after)
        self._joined.append(row.joined)
        self.size += len(row.text)
        for name, values in self._values.items():
            values.append(field_of(row.fields, name))

    def column(self, name: str) -> list[object]:
        """Return one field's values; None where it is absent or null. Of a key that occurs twice, the last value."""
        if name in self._values:
            return list(self._values[name])
        rows = (parse_object(text, f"row {row}") for row, text in enumerate(self.objects(), self.first_row))
        return [field_of(row, name) for row in rows]

    def objects(self) -> Sequence[str]:
        """Return the raw texts of the objects, each with what was joined to it from elsewhere in the file."""
        writer = MemberWriter([FILE_NAME])
        pairs = zip(self.texts, self._joined, strict=True)
        return [text if literal is None else writer.set(text, [literal]) for text, literal in pairs]

    def select(self, kept: Sequence[bool]) -> Self:
        selected = super().select(kept)
        selected.before, selected.after = list(compress(self.before, kept)), list(compress(self.after, kept))
        selected._joined = list(compress(self._joined, kept))
        return selected


class JsonReader(RowReader):
    """A file of JSON objects. A scan reports the announced columns past ``MAX_COLUMN_NAMES`` too."""

    @abstractmethod
    def _rows(self) -> Iterator[JsonRow]:
        """Yield the rows, in one pass over the file."""

    def scan(self) -> TableScan:
        """Parse every row, count them and collect their field names.

        :raises JobError: at the first row that is not a JSON object, or text that cannot be read.
        """
        rows = 0
        # A dictionary is a set that remembers the order.
        names: dict[str, None] = {}
        wanted, paths = set(filter(path_of, self._columns)), _Paths()
        for row in self._rows():
            rows += 1
            if not row.fields.keys() <= names.keys():
                self._remember(row.fields, names)
            if wanted:
                wanted -= paths.add_found(wanted, row.fields)
            if rows <= _ROWS_LOOKED_INTO:
                paths.add_texts(row.fields)
        return TableScan(rows, tuple(names), paths.all())

    def _remember(self, fields: Iterable[str], names: dict[str, None]) -> None:
        for name in fields:
            if (len(names) < MAX_COLUMN_NAMES and len(name) <= _LONGEST_NAME) or name in self._columns:
                names[name] = None

    def chunks(self, rows: int, segment_rows: int | None = None) -> Iterator[JsonChunk]:
        return in_chunks(self._rows(), rows, segment_rows, lambda first_row: JsonChunk(first_row, self._columns))


class _Paths:
    """Paths into rows, those that were asked for before those that might be."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._texts: dict[str, None] = {}

    def add_found(self, wanted: Iterable[str], fields: Mapping[str, object]) -> set[str]:
        """Return those of some paths that lead to anything in a row, and keep them."""
        found = {path for path in wanted if path not in fields and has_field(fields, path)}
        self._found.update(dict.fromkeys(found))
        return found

    def add_texts(self, fields: Mapping[str, object]) -> None:
        for path in texts_in(fields):
            if len(self._texts) < MOST_PATHS:
                self._texts[path] = None

    def all(self) -> tuple[str, ...]:
        return tuple(self._found | self._texts)


def parse_object(text: str, place: str) -> dict[str, object]:
    """Return the fields of a text that is one JSON object and nothing else.

    :param place: where the text stands, for the message.
    :raises JobError: if it is anything else.
    """
    check_values(text, place)
    try:
        value, end = parse(text)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except json.JSONDecodeError as error:
        # Not from that error: it holds the text, and whatever reports errors may print it.
        raise not_valid(place, error) from None
    except RecursionError as error:
        raise nested_too_deeply(place) from error
    if not isinstance(value, dict):
        raise not_an_object(place, value)
    return value


def not_valid(place: str, error: json.JSONDecodeError, start: int = 0) -> JobError:
    """Return the error for broken JSON in the row that begins at `start`.

    It quotes nothing: what is not a table may be another's file, of which nobody should read in a log.
    """
    problem = f"{error.msg.removesuffix(' at')} at character {error.pos - start + 1}"
    return JobError(f"{place} is not valid JSON ({problem})")


def nested_too_deeply(place: str) -> JobError:
    """Return the error for arrays or objects inside one another without end."""
    return JobError(f"{place} is nested too deeply to be read")


def not_an_object(place: str, value: object) -> JobError:
    """Return the error for a row that is some other JSON value."""
    return JobError(f"{place} is {kind_of(value)}, expected a JSON object")


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words."""
    return "null" if value is None else _KINDS[type(value)]
