"""Writes JSON objects with added members, and keeps the text around them if they come from the same format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

from clip_operator.tables.added_columns import checked_columns
from clip_operator.tables.file_types import FileType
from clip_operator.tables.json.members import MemberWriter, json_literal
from clip_operator.tables.json.reader import JsonChunk, nested_too_deeply
from clip_operator.tables.table import AddedType, AddedValue, Chunk, TableReader
from clip_operator.tables.text_writer import TextWriter


@runtime_checkable
class ObjectChunk(Chunk, Protocol):
    """A chunk whose rows can be had as the raw texts of JSON objects."""

    def objects(self) -> Sequence[str]: ...


class JsonWriter(TextWriter):
    """Writes any rows that can be JSON objects.

    :param like: the input.
    :raises JobError: if its header names a column twice.
    """

    def __init__(self, path: Path, file_type: FileType, added: Mapping[str, AddedType], like: TableReader) -> None:
        if (header := like.header()) is not None:
            # Of an object with a key twice, most readers keep only one of the values.
            for name in header.names:
                header.index(name)
        super().__init__(path, file_type)
        self._added = dict(added)
        self._members = MemberWriter(list(added))

    def _objects(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> Sequence[str]:
        """Return the chunk's objects with their new members.

        :raises ValueError: if the columns or their lengths are not the announced ones, or a number is not finite.
        :raises JobError: if an object is nested too deeply.
        """
        if not isinstance(chunk, ObjectChunk):
            raise TypeError(f"a {type(chunk).__name__} does not hold rows that can be JSON objects")
        columns = checked_columns(self._added, added, len(chunk))
        objects = self._before(chunk)
        if not columns:
            return objects
        literals = zip(*([json_literal(value) for value in values] for values in columns), strict=True)
        texts: list[str] = []
        for text, row in zip(objects, literals, strict=True):
            try:
                texts.append(self._members.set(text, row))
            except RecursionError as error:
                # The reader followed the nesting, but from a place less deep in the program's own calls.
                raise nested_too_deeply(f"row {chunk.first_row + len(texts)}") from error
        return texts

    def _before(self, chunk: ObjectChunk) -> Sequence[str]:
        """Return the objects without what is added."""
        return chunk.objects()


class SameLayoutWriter(JsonWriter):
    """JSON to the same JSON: the text around every object is the input's."""

    def _before(self, chunk: ObjectChunk) -> Sequence[str]:
        return chunk.texts if isinstance(chunk, JsonChunk) else chunk.objects()

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        if not isinstance(chunk, JsonChunk):
            raise TypeError(f"a {type(chunk).__name__} does not come from the table that this one is like")
        rows = zip(chunk.before, self._objects(chunk, added), chunk.after, strict=True)
        self._append("".join(chain.from_iterable(rows)))
