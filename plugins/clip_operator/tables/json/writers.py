"""Writes JSON objects with added members: in the input's own layout, as lines, or as a new array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

from clip_operator.errors import JobError
from clip_operator.tables.added_columns import checked_columns
from clip_operator.tables.file_types import FileType
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.json.array import JsonArrayReader
from clip_operator.tables.json.members import MemberWriter, json_literal, without_line_breaks
from clip_operator.tables.json.reader import JsonChunk, nested_too_deeply
from clip_operator.tables.table import AddedType, AddedValue, Chunk
from clip_operator.tables.text_table import TextWriter

ARRAY_START = "[\n"
ARRAY_JOINT = ",\n"
ARRAY_END = "\n]\n"
EMPTY_ARRAY = "[]"


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
            if self._like.fragment == WHOLE:
                self._output.write(self._like.empty_text())
        elif not self._end and self._like.fragment.last:
            self._output.discard()
            raise JobError("The output was closed before the last element of the input's array was written.")
        super().close()


class LinesWriter(_JsonWriter):
    """JSON, CSV or a tar to JSONL: one object a line."""

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's rows with their new members."""
        self._output.write("".join([f"{without_line_breaks(text)}\n" for text in self._objects(chunk, added)]))


class ArrayWriter(_JsonWriter):
    """Anything to JSON whose text around the rows is not kept: one array, each object on a new line.

    :param fragment: the place of these rows in the array. A fragment takes it that the others have rows, so that there
        is a comma before every one but the first. If it has none itself, it is empty; see
        :func:`~clip_operator.tables.join_arrays` for tables whose first or last fragment is.
    """

    def __init__(
        self, path: Path, file_type: FileType, added: Mapping[str, AddedType], fragment: Fragment = WHOLE
    ) -> None:
        super().__init__(path, file_type, added)
        self._fragment = fragment
        self._separator = ARRAY_START if fragment.first else ARRAY_JOINT
        self._rows = 0

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's rows with their new members."""
        objects = self._objects(chunk, added)
        if objects:
            self._output.write(self._separator + ARRAY_JOINT.join(objects))
            self._separator = ARRAY_JOINT
            self._rows += len(objects)

    def close(self) -> None:
        """Complete the file."""
        if self._rows and self._fragment.last:
            self._output.write(ARRAY_END)
        elif not self._rows and self._fragment == WHOLE:
            self._output.write(EMPTY_ARRAY)
        super().close()
