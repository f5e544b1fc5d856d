"""Writes Parquet with added columns, row group by row group as in the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from clip_operator.errors import JobError
from clip_operator.machine.disk import written_to
from clip_operator.tables.added_columns import checked_columns
from clip_operator.tables.file_types import FileType, TableFormat
from clip_operator.tables.parquet.columns import column_index
from clip_operator.tables.parquet.reader import ParquetReader, ParquetSource
from clip_operator.tables.parquet.schema import ARROW_TYPES, Template, leaf_options, with_columns
from clip_operator.tables.table import AddedType, AddedValue, Chunk, TableReader, TableWriter

MAX_GROUP_BYTES = 1024**3
"""A row group of the input that is larger in memory becomes several, because a writer holds the rows of one."""


@runtime_checkable
class BatchTable(Protocol):
    """A reader whose chunks are :class:`BatchChunk`."""

    def template(self) -> Template:
        """Return what a new file takes over."""


@runtime_checkable
class BatchChunk(Chunk, Protocol):
    """A chunk whose rows can be had as Arrow's record batches."""

    def batches(self) -> Sequence[pa.RecordBatch]:
        """Return the rows, with the columns of the template."""


def template_of(like: TableReader) -> Template:
    """Return what a new file takes over of a table."""
    if not isinstance(like, BatchTable):
        raise TypeError(f"a {type(like).__name__} does not hold rows that can be Parquet's")
    return like.template()


class ParquetWriter(TableWriter):
    """Record batches to Parquet. Holds the rows of one row group, as large as the input's, up to ``MAX_GROUP_BYTES``.

    :param target: the file, or a stream that need not seek, which is not closed.
    :param like: what the output takes over of the input: schema, metadata, row groups and codecs.
    :raises JobError: if the input has several columns of an added name.
    """

    def __init__(self, target: Path | BinaryIO, added: Mapping[str, AddedType], like: Template) -> None:
        self._target = target
        self._added = dict(added)
        self._schema = with_columns(like.schema, added)
        options = leaf_options(like.schema, like.parts)
        with self._errors_explained():
            self._file = pq.ParquetWriter(target, self._schema, **options)
        self._group_sizes = like.group_sizes
        self._group = 0
        self._group_rows = 0  # of the input's row group, how many rows came already
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes: int = 0

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        if not isinstance(chunk, BatchChunk):
            raise TypeError(f"a {type(chunk).__name__} does not come from the table that this one is like")
        columns = checked_columns(self._added, added, len(chunk))
        start = 0
        for batch in chunk.batches():
            end = start + batch.num_rows
            self._append(self._with_columns(batch, [values[start:end] for values in columns]))
            start = end

    def _with_columns(self, batch: pa.RecordBatch, columns: Sequence[Sequence[AddedValue]]) -> pa.RecordBatch:
        arrays = list(batch.columns)
        for (name, column_type), values in zip(self._added.items(), columns, strict=True):
            array = pa.array(values, ARROW_TYPES[column_type])
            index = column_index(batch.schema, name)
            if index is None:
                arrays.append(array)
            else:
                arrays[index] = array
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _append(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            self._end_full_groups()
            taken = batch.slice(0, self._room())
            self._pending.append(taken)
            self._pending_bytes += taken.nbytes
            self._group_rows += taken.num_rows
            batch = batch.slice(taken.num_rows)
            if self._pending_bytes > MAX_GROUP_BYTES and self._room():
                self._write_pending()

    def _room(self) -> int:
        """Return how many rows the current row group still takes."""
        return self._group_sizes[self._group] - self._group_rows

    def _end_full_groups(self) -> None:
        while self._group < len(self._group_sizes) and self._room() == 0:
            self._write_pending()
            self._group += 1
            self._group_rows = 0

    def _write_pending(self) -> None:
        """Write a row group, which is a part of the input's if that is large in memory."""
        rows = pa.Table.from_batches(self._pending, self._schema)
        with self._errors_explained():
            self._file.write_table(rows, rows.num_rows or None)
        self._pending = []
        self._pending_bytes = 0

    def close(self) -> None:
        """Complete the file.

        :raises JobError: if not all row groups of the input were written.
        """
        self._end_full_groups()
        with self._errors_explained():
            self._file.close()
        if self._group < len(self._group_sizes):
            self.discard()
            raise JobError("The output was closed before all row groups of the input were written.")

    def discard(self) -> None:
        with suppress(pa.ArrowException, OSError):
            self._file.close()
        if isinstance(self._target, Path):
            self._target.unlink(missing_ok=True)

    def _errors_explained(self) -> AbstractContextManager[None]:
        return written_to(self._target) if isinstance(self._target, Path) else nullcontext()


class ParquetSelectionWriter(ParquetWriter):
    """Some rows of a Parquet file to Parquet, in row groups as large as the input's largest, up to ``MAX_GROUP_BYTES``.

    :param like: the input, whose schema, metadata and codecs the output takes over.
    """

    def __init__(self, path: Path, like: Template) -> None:
        super().__init__(path, {}, replace(like, group_sizes=()))
        self._most_rows = max(like.group_sizes, default=1)

    def _room(self) -> int:
        return self._most_rows - self._group_rows

    def _end_full_groups(self) -> None:
        if self._pending and not self._room():
            self._write_pending()

    def _write_pending(self) -> None:
        super()._write_pending()
        self._group_rows = 0

    def close(self) -> None:
        if self._pending:
            self._write_pending()
        super().close()


_JOINED_ROWS = 1 << 20


def join(sources: Sequence[ParquetSource], target: Path | BinaryIO) -> int:
    """Write the rows of all sources to one file and return how many there are."""
    reader = ParquetReader(sources, FileType(TableFormat.PARQUET), None)
    with ParquetWriter(target, {}, reader.template()) as new:
        for chunk in reader.chunks(_JOINED_ROWS):
            new.write(chunk, {})
    return reader.scan().rows
