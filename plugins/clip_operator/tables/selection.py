"""Writes some of a table's rows to a new table, each as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from clip_operator.tables.csv.reader import CsvReader
from clip_operator.tables.csv.writer import CsvWriter
from clip_operator.tables.fragment import WHOLE
from clip_operator.tables.json.array import JsonArrayReader
from clip_operator.tables.json.lines import JsonlReader
from clip_operator.tables.json.writers import ArrayWriter, SameLayoutWriter
from clip_operator.tables.table import Chunk, TableReader, TableWriter


@runtime_checkable
class SelectableChunk(Chunk, Protocol):
    """A chunk of which some rows can be had as a chunk."""

    def select(self, kept: Sequence[bool]) -> Self:
        """The rows at which ``kept``, which has a value for each row, is true."""


class Selection:
    """A local file that grows by some rows of a table. Left by an exception, it removes the file.

    :param writer: of a table without added columns.
    """

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer

    def write(self, chunk: Chunk, kept: Sequence[bool]) -> None:
        """Append those rows of a chunk at which ``kept``, which has a value for each row, is true."""
        if not isinstance(chunk, SelectableChunk):
            raise TypeError(f"a {type(chunk).__name__} holds rows of what no step is written as")
        if any(kept):
            self._writer.write(chunk.select(kept), {})

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


def create_selection(path: Path, like: TableReader) -> Selection:
    """Create a local file, of the same type as ``like``, for some of its rows. With none it is a table without rows.

    Every row is byte for byte what it was. CSV keeps its header, and JSONL each line's white space and line ending; the
    elements of a JSON array come to stand on a line each. Parquet keeps schema, metadata and codecs, in row groups of
    the size of the input's largest.

    :param like: the open table: one file, and all of it.
    """
    if isinstance(like, JsonlReader):
        return Selection(SameLayoutWriter(path, like.file_type, {}))
    if isinstance(like, JsonArrayReader):
        return Selection(ArrayWriter(path, like.file_type, {}))
    if isinstance(like, CsvReader):
        return Selection(CsvWriter(path, like.file_type, {}, like, WHOLE))
    from clip_operator.tables.parquet.reader import ParquetReader
    from clip_operator.tables.parquet.writer import ParquetSelectionWriter

    if not isinstance(like, ParquetReader):
        raise TypeError(f"a {type(like).__name__} reads what no step is written as")
    return Selection(ParquetSelectionWriter(path, like))
