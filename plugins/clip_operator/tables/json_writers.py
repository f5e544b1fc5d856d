"""Writes JSON objects with added members: in the input's own layout, as lines, or as a new array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

from clip_operator.errors import JobError
from clip_operator.tables.added_columns import checked_columns
from clip_operator.tables.file_types import FileType
from clip_operator.tables.json_array import JsonArrayReader
from clip_operator.tables.json_members import MemberWriter, json_literal, without_line_breaks
from clip_operator.tables.json_reader import JsonChunk, nested_too_deeply
from clip_operator.tables.table import AddedType, AddedValue, Chunk
from clip_operator.tables.text_table import TextWriter


@runtime_checkable
class ObjectChunk(Chunk, Protocol):
    """A chunk whose rows can be had as the raw texts of JSON objects."""

    def objects(self) -> Sequence[str]: ...


class _JsonWriter(TextWriter):
    def __init__(self, path: Path, file_type: FileType, added: Mapping[str, AddedType]) -> None:
        super().__init__(path, file_type)
        self._added = dict(added)
        self._members = MemberWriter(list(added))

    def _objects(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> Sequence[str]:
        """The chunk's objects with their new members.

        :raises ValueError: if the columns or their lengths are not the announced ones, or a number is not finite.
        :raises JobError: if an object is nested too deeply.
        """
        if not isinstance(chunk, ObjectChunk):
            raise TypeError(f"a {type(chunk).__name__} does not hold rows that can be JSON objects")
        columns = checked_columns(self._added, added, len(chunk))
        if not columns:
            return chunk.objects()
        literals = zip(*([json_literal(value) for value in values] for values in columns), strict=True)
        texts: list[str] = []
        for text, row in zip(chunk.objects(), literals, strict=True):
            try:
                texts.append(self._members.set(text, row))
            except RecursionError as error:
                # The reader followed the nesting, but from a place less deep in the program's own calls.
                raise nested_too_deeply(f"row {chunk.first_row + len(texts)}", text) from error
        return texts


class SameLayoutWriter(_JsonWriter):
    """JSONL to JSONL: the text around every object is the input's."""

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's rows with their new members."""
        if not isinstance(chunk, JsonChunk):
            raise TypeError(f"a {type(chunk).__name__} does not come from the table that this one is like")
        rows = zip(chunk.before, self._objects(chunk, added), chunk.after, strict=True)
        self._output.write("".join(chain.from_iterable(rows)))


class SameArrayWriter(SameLayoutWriter):
    """JSON to JSON: the brackets, commas and indentation are the input's.

    :param like: the input, whose text is also the output's where it has no elements.
    """

    def __init__(self, path: Path, file_type: FileType, added: Mapping[str, AddedType], like: JsonArrayReader) -> None:
        super().__init__(path, file_type, added)
        self._like = like
        self._end: str | None = None

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's rows with their new members."""
        super().write(chunk, added)
        if isinstance(chunk, JsonChunk) and chunk.after:
            self._end = chunk.after[-1]

    def close(self) -> None:
        """Complete the file.

        :raises JobError: if the input's last element was not written, so that the array would stay open.
        """
        if self._end is None:
            self._output.write(self._like.empty_text())
        elif not self._end:
            self._output.discard()
            raise JobError("The output was closed before the last element of the input's array was written.")
        super().close()


class LinesWriter(_JsonWriter):
    """JSON or CSV to JSONL: one object a line."""

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's rows with their new members."""
        self._output.write("".join([f"{without_line_breaks(text)}\n" for text in self._objects(chunk, added)]))


class ArrayWriter(_JsonWriter):
    """JSONL or CSV to JSON: one array with an object a line."""

    _separator = "[\n"

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's rows with their new members."""
        objects = self._objects(chunk, added)
        if objects:
            self._output.write(self._separator + ",\n".join(objects))
            self._separator = ",\n"

    def close(self) -> None:
        """Complete the file."""
        self._output.write("[]" if self._separator == "[\n" else "\n]\n")
        super().close()
