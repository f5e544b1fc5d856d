"""Writes JSON objects with added members: in the input's own layout, as lines, or as a new array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from clip_operator.errors import JobError
from clip_operator.tables.added_columns import checked_columns
from clip_operator.tables.file_types import FileType
from clip_operator.tables.json_array import JsonArrayReader
from clip_operator.tables.json_members import MemberWriter, json_literal, without_line_breaks
from clip_operator.tables.json_reader import JsonChunk
from clip_operator.tables.table import AddedType, AddedValue, Chunk
from clip_operator.tables.text_files import TextWriter


@runtime_checkable
class ObjectChunk(Chunk, Protocol):
    """A chunk whose rows can be had as the raw texts of JSON objects."""

    def objects(self) -> Sequence[str]: ...


class _JsonWriter(TextWriter, ABC):
    def __init__(self, path: Path, file_type: FileType, added: Mapping[str, AddedType]) -> None:
        super().__init__(path, file_type.gzip)
        self._added = dict(added)
        self._members = MemberWriter(list(added))

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's objects with their new members.

        :raises ValueError: if the columns or their lengths are not the announced ones, or a number is not finite.
        """
        if not isinstance(chunk, ObjectChunk):
            raise TypeError(f"a {type(chunk).__name__} does not hold rows that can be JSON objects")
        columns = checked_columns(self._added, added, len(chunk))
        texts = chunk.objects()
        if columns:
            literals = zip(*([json_literal(value) for value in values] for values in columns), strict=True)
            set_members = self._members.set
            texts = [set_members(text, row) for text, row in zip(texts, literals, strict=True)]
        self._output.write("".join(self._laid_out(chunk, texts)))

    @abstractmethod
    def _laid_out(self, chunk: Chunk, texts: Sequence[str]) -> Iterable[str]:
        """The pieces of text to write, in order."""


class SameLayoutWriter(_JsonWriter):
    """JSONL to JSONL: the text around every object is the input's."""

    def _laid_out(self, chunk: Chunk, texts: Sequence[str]) -> Iterable[str]:
        if not isinstance(chunk, JsonChunk):
            raise TypeError(f"a {type(chunk).__name__} does not come from the table that this one is like")
        for pieces in zip(chunk.before, texts, chunk.after, strict=True):
            yield from pieces


class SameArrayWriter(SameLayoutWriter):
    """JSON to JSON: the brackets, commas and indentation are the input's.

    :param like: the input, whose text is also the output's where it has no elements.
    """

    def __init__(self, path: Path, file_type: FileType, added: Mapping[str, AddedType], like: JsonArrayReader) -> None:
        super().__init__(path, file_type, added)
        self._like = like
        self._last_after: str | None = None

    def _laid_out(self, chunk: Chunk, texts: Sequence[str]) -> Iterable[str]:
        yield from super()._laid_out(chunk, texts)
        if isinstance(chunk, JsonChunk) and chunk.after:
            self._last_after = chunk.after[-1]

    def close(self) -> None:
        """Complete the file.

        :raises JobError: if the array's last element was not written, so that it would not be closed.
        """
        if self._last_after is None:
            self._output.write(self._like.empty_text())
        elif not self._last_after:
            self._output.discard()
            raise JobError("The output was closed before the last element of the input's array was written.")
        super().close()


class LinesWriter(_JsonWriter):
    """JSON or CSV to JSONL: one object a line."""

    def _laid_out(self, chunk: Chunk, texts: Sequence[str]) -> Iterable[str]:
        return (f"{without_line_breaks(text)}\n" for text in texts)


class ArrayWriter(_JsonWriter):
    """JSONL or CSV to JSON: one array with an object a line."""

    _rows = 0

    def _laid_out(self, chunk: Chunk, texts: Sequence[str]) -> Iterable[str]:
        for text in texts:
            yield ",\n" if self._rows else "[\n"
            yield text
            self._rows += 1

    def close(self) -> None:
        """Complete the file."""
        self._output.write("\n]\n" if self._rows else "[]")
        super().close()
