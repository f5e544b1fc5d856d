"""Reads Parquet in record batches, with every column, type and piece of metadata as Arrow knows it."""

from __future__ import annotations

import io
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from itertools import accumulate, zip_longest
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clip_operator.errors import JobError
from clip_operator.machine.stopping import check_not_stopped
from clip_operator.tables import table
from clip_operator.tables.file_types import FileType
from clip_operator.tables.parquet.columns import column_index, schema_paths
from clip_operator.tables.parquet.row_groups import ParquetLayout, RowGroup
from clip_operator.tables.parquet.row_sizes import check_rows, row_sizes
from clip_operator.tables.parquet.schema import Template
from clip_operator.tables.parquet.trial import Attempt, Trial, shared_trial
from clip_operator.tables.parquet.types import changed
from clip_operator.tables.parquet.unified import UnifiedColumns, with_columns_of
from clip_operator.tables.parquet.validity import check_sound
from clip_operator.tables.parquet.values import LargestValues
from clip_operator.tables.paths import path_of, value_at
from clip_operator.tables.table import TableReader, TableScan, errors_explained, names_of

ParquetSource = Path | BinaryIO | Callable[[], BinaryIO]
"""A file, a stream that can seek, or what opens one."""

MAX_BATCH_BYTES = 64 * 1024 * 1024
"""No more rows are read at once than fit into this much memory, whatever the footer says of their size."""

_FOOTER_END_BYTES = 8  # its length in four bytes, and the format's mark in four
_PADDING_BYTES = 100  # old writers understated a column by the header of its dictionary, so Arrow reads on for as much


class ParquetChunk:
    """Consecutive rows of all columns, in one or more record batches: row groups may be smaller than a chunk."""

    def __init__(self, first_row: int, batches: Sequence[pa.RecordBatch], size: int) -> None:
        self.first_row = first_row
        self.size = size
        self._rows: int = sum(batch.num_rows for batch in batches)
        self._batches = tuple(batches)

    def batches(self) -> Sequence[pa.RecordBatch]:
        """Return the rows as Arrow's record batches."""
        return self._batches

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> list[object]:
        """Return one column's Python values (binary as bytes, struct as dict); None where null or without the column.

        :class:`UnreadableValue` where Python has no such value.
        """
        values: list[object] = []
        for batch in self._batches:
            values += _values_of(batch, name)
        return values

    def select(self, kept: Sequence[bool]) -> ParquetChunk:
        start, batches = 0, []
        for batch in self._batches:
            of_batch = kept[start : start + batch.num_rows]
            arrays = [_selected(array, of_batch) for array in batch.columns]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=batch.schema))
            start += batch.num_rows
        return ParquetChunk(self.first_row, batches, sum(batch.nbytes for batch in batches))


def _values_of(batch: pa.RecordBatch, name: str) -> list[object]:
    index = column_index(batch.schema, name)
    if index is not None:
        return _python_values(batch.column(index))
    steps = path_of(name) or (name,)
    index = column_index(batch.schema, str(steps[0]))
    if index is None:
        return [None] * batch.num_rows
    array, inner = batch.column(index), steps[1:]
    # Not all of a struct becomes Python values: beside a caption there may be an image.
    while inner and pa.types.is_struct(array.type) and (field := array.type.get_field_index(str(inner[0]))) >= 0:
        array, inner = pc.struct_field(array, [field]), inner[1:]
    values = _python_values(array)
    return [value if isinstance(value, table.UnreadableValue) else value_at(value, inner) for value in values]


def _selected(array: pa.Array, kept: Sequence[bool]) -> pa.Array:
    try:
        return array.filter(pa.array(kept, pa.bool_()))
    except pa.ArrowNotImplementedError:  # of string_view, binary_view and what holds them
        rows = [array.slice(row, 1) for row, is_kept in enumerate(kept) if is_kept]
        return pa.concat_arrays([array.slice(0, 0), *rows])


def _python_values(array: pa.Array) -> list[object]:
    try:
        return list(array.to_pylist())
    except MemoryError:
        raise
    # Text that is not UTF-8, times past Python's years, time zones that nobody knows, structs with a name twice: each
    # is said by an exception of another class.
    except Exception:
        return [_python_value(value) for value in array]


def _python_value(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except MemoryError:
        raise
    except Exception:
        return table.UnreadableValue()


class ParquetReader(TableReader):
    """A Parquet file, some consecutive row groups of one, or several files whose rows come one behind the other.

    Of a file only the footer and the row groups that were asked for are read, so the rest of its bytes need not be
    there.

    :param source: the file, or the files; each may also be a stream that can seek.
    :param columns: names that may each occur only once in the schema.
    :param row_groups: of a single file, those to read; by default all.
    :param schema: the columns of the table that the files are some of the parts of; by default those of all files here.
    :raises JobError: if a file is not readable Parquet, names one of the columns twice, or has columns that do not go
        with those of the others.
    """

    def __init__(
        self,
        source: ParquetSource | Sequence[ParquetSource],
        file_type: FileType,
        columns: Sequence[str] | None,
        row_groups: range | None = None,
        schema: pa.Schema | None = None,
    ) -> None:
        sources = source if isinstance(source, Sequence) else [source]
        super().__init__(file_type, _names(sources))
        unified = UnifiedColumns()
        if schema is not None:
            unified.add(schema, "the first file")
        self._parts = []
        for name, part_source in zip(self.file_names, sources, strict=True):
            with errors_explained(name) if isinstance(source, Sequence) else nullcontext():
                part = FilePart(part_source, row_groups, shared_trial())
            unified.add(part.schema, name)
            self._parts.append(part)
        self.file_starts = [0, *accumulate(part.metadata.num_rows for part in self._parts)][:-1]
        self._schema = unified.schema
        self._columns = tuple(columns or ())
        for name in self._columns:
            column_index(self._schema, name)

    def template(self) -> Template:
        """Return what a new file takes over."""
        sizes = [part.metadata.row_group(group).num_rows for part in self._parts for group in part.groups]
        return Template(self._schema, [(part.schema, part.metadata) for part in self._parts], sizes)

    def scan(self) -> TableScan:
        """Return rows and columns as the footer states them."""
        template = self.template()
        paths = schema_paths(template.schema, self._columns)
        return TableScan(sum(template.group_sizes), tuple(template.schema.names), paths)

    def chunks(self, rows: int, segment_rows: int | None = None) -> Iterator[ParquetChunk]:
        """Yield all rows in order, at most `rows` in a chunk. Chunks and row groups end independently.

        :raises JobError: if the data is damaged.
        """
        chunk = _GrowingChunk(0)
        for batch in self._batches(rows):
            ends = np.cumsum(row_sizes(batch))
            start = 0
            while start < batch.num_rows:
                most = table.most_rows(chunk.first_row, rows, segment_rows)
                start += chunk.add(batch, ends, start, most)
                if chunk.is_full(most):
                    yield chunk.whole()
                    chunk = _GrowingChunk(chunk.first_row + chunk.rows)
        if chunk.rows:
            yield chunk.whole()

    def _batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        for name, part in zip(self.file_names, self._parts, strict=True):
            with errors_explained(name) if len(self._parts) > 1 else nullcontext():
                for batch in part.batches(rows):
                    if not batch.schema.equals(self._schema, check_metadata=True):
                        with _errors_explained():
                            batch = with_columns_of(batch, self._schema)
                    yield batch


class _GrowingChunk:
    """A chunk to which rows are added while it is being read.

    Where it ends is decided by its own rows, and not by others nor by row groups, so that a shard is read in the chunks
    of the whole.
    """

    def __init__(self, first_row: int) -> None:
        self.first_row = first_row
        self.rows: int = 0
        self._size: int = 0
        self._bytes_in_memory: int = 0
        self._batches: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch, ends: NDArray[np.int64], start: int, most: int) -> int:
        """Take in rows of a batch from ``start`` on, up to ``most`` in all or as many as make it full, and return how
        many.

        :param ends: the sum of the sizes of the batch's rows, up to the end of each.
        """
        before = int(ends[start - 1]) if start else 0
        filling = int(np.searchsorted(ends[start:], before + table.CHUNK_BYTES - self._size)) + 1
        taken = batch.slice(start, min(most - self.rows, filling))
        self._batches.append(taken)
        self.rows += taken.num_rows
        self._size += int(ends[start + taken.num_rows - 1]) - before
        self._bytes_in_memory += taken.nbytes
        return int(taken.num_rows)

    def is_full(self, most: int) -> bool:
        """Tell whether it takes no more rows, of so many in all."""
        return self.rows == most or self._size >= table.CHUNK_BYTES or self._bytes_in_memory >= MAX_BATCH_BYTES

    def whole(self) -> ParquetChunk:
        """Return the chunk with the rows that were added."""
        return ParquetChunk(self.first_row, self._batches, self._size)


class FilePart:
    """Some row groups of one file, which is open only while it is read: a table may have thousands of files.

    :param trial: what decodes everything first, in a process whose memory is limited. Without one, and of a stream,
        everything is decoded here at once: such streams are what jobs have written themselves.
    """

    def __init__(self, source: ParquetSource, row_groups: range | None = None, trial: Trial | None = None) -> None:
        self.source = source
        self._trial = trial if isinstance(source, Path) else None
        if self._trial is not None and isinstance(source, Path):
            self._trial.footer(source, row_groups[0] if row_groups else None)
        with self._opened() as opened, _parquet_file(opened) as file:
            with _errors_explained():
                self.metadata: pq.FileMetaData = file.metadata
                self.schema: pa.Schema = file.schema_arrow
            groups = [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]
            if sum(groups) != self.metadata.num_rows or min(groups, default=0) < 0:
                raise not_parquet("its footer states another number of rows than its row groups do")
            self.groups = range(len(groups)) if row_groups is None else row_groups
            if not set(self.groups) <= set(range(len(groups))):
                raise JobError(f"The Parquet file has {len(groups)} row groups, so that there is no {row_groups}.")
            if self.groups:
                check_not_encrypted(file, self.groups[0])

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows in record batches of at most this many.

        :raises JobError: the data is damaged, or has a row that is too large or has too many values.
        """
        # Row group by row group, because Arrow cannot put nested dictionaries of two row groups into one batch.
        with (
            self._opened() as opened,
            closing(LargestValues(opened, self.metadata)) as largest_values,
            _parquet_file(opened, metadata=self.metadata) as file,
        ):
            for group in self._tried(rows, self.groups):
                check_not_stopped()
                self._check_int96(opened, group)
                with _errors_explained():
                    largest = largest_values.of(group)
                most = min(rows, self._rows_that_fit(group), MAX_BATCH_BYTES // max(1, largest))
                yield from self._batches_of(file, group, max(1, most))
                # Else Arrow keeps what it has freed, and memory grows with the number of row groups.
                pa.default_memory_pool().release_unused()

    def _tried(self, rows: int, groups: Sequence[int]) -> Iterator[int]:
        """Yield the row groups, each when it was decoded on trial; meanwhile the next one is."""
        if self._trial is None or not isinstance(self.source, Path):
            yield from groups
            return
        begun: deque[Attempt] = deque()
        try:
            for group, following in zip_longest(groups, groups[1:]):
                tried = begun.popleft() if begun else self._trial.begin(self.source, group, rows)
                self._trial.wait_for(tried, f"Row group {group + 1:,} of {self.metadata.num_row_groups:,}")
                if following is not None:
                    begun.append(self._trial.begin(self.source, following, rows))
                yield group
        finally:  # also of a pass that is given up
            for attempt in begun:
                self._trial.drop(attempt)

    def _opened(self) -> AbstractContextManager[Path | BinaryIO]:
        if callable(self.source):
            return self.source()
        return nullcontext(self.source)

    def _batches_of(self, file: pq.ParquetFile, group: int, rows: int) -> Iterator[pa.RecordBatch]:
        batches = file.iter_batches(batch_size=rows, row_groups=[group])
        rows_left: int = self.metadata.row_group(group).num_rows
        while True:
            with _errors_explained():
                batch = next(batches, None)
                if batch is None:
                    break
                check_sound(batch)
            check_not_stopped()
            first_row = self.metadata.row_group(group).num_rows - rows_left
            check_rows(batch, f"of row group {group + 1:,}", first_row)
            rows_left -= batch.num_rows
            if rows_left < 0:
                break
            yield batch
        if rows_left:
            raise not_parquet(f"row group {group} holds another number of rows than its footer states")

    def _check_int96(self, opened: Path | BinaryIO, group: int) -> None:
        """Refuse what Arrow alters silently: an INT96 time outside the range of 64-bit nanoseconds wraps around."""
        leaves = [self.metadata.schema.column(index) for index in range(self.metadata.num_columns)]
        paths = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
        if not paths:
            return
        with _errors_explained(), pq.ParquetFile(opened, coerce_int96_timestamp_unit="us") as in_microseconds:
            for batch in in_microseconds.iter_batches(row_groups=[group], columns=paths):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    try:
                        column.cast(changed(column.type, _in_nanoseconds))
                    except pa.ArrowInvalid as error:
                        raise JobError(
                            f"The Parquet column {name!r} holds times before 1677 or after 2262 in the deprecated type "
                            "INT96, which cannot be read exactly. Write the column as TIMESTAMP(MICROS)."
                        ) from error

    def _rows_that_fit(self, group: int) -> int:
        """Return how many rows of the row group's average size make up a full chunk."""
        metadata = self.metadata.row_group(group)
        return int(table.CHUNK_BYTES * metadata.num_rows / max(1, metadata.num_rows, metadata.total_byte_size))


@contextmanager
def _parquet_file(opened: Path | BinaryIO, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    with _errors_explained():
        file = pq.ParquetFile(opened, metadata=metadata)
    with closing(file):
        yield file


def _names(sources: Sequence[ParquetSource]) -> list[str]:
    paths = [source for source in sources if isinstance(source, Path)]
    if len(paths) == len(sources):
        return names_of(paths)
    return [f"Table {number}" for number in range(1, len(sources) + 1)]


def check_not_encrypted(file: pq.ParquetFile, group: int) -> None:
    """Read the first row of a row group, which raises where its columns are encrypted.

    To ask the footer about such columns would end the whole process.

    :raises JobError: if they are, or cannot be read.
    """
    with _errors_explained():
        next(file.iter_batches(batch_size=1, row_groups=[group]), None)


def _check_columns_not_encrypted(file: pq.ParquetFile) -> None:
    """Refuse encrypted columns of a file of which only the footer is there."""
    try:
        check_not_encrypted(file, 0)
    except EncryptedFile:
        raise
    except JobError:
        return  # where the column should be, there is nothing


def read_layout(stream: BinaryIO) -> ParquetLayout:
    """Do what :func:`~clip_operator.tables.parquet_layout` says."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _FOOTER_END_BYTES))
    footer = max(0, size - _FOOTER_END_BYTES - int.from_bytes(stream.read(4), "little"))
    stream.seek(footer)
    with NamedTemporaryFile() as alone:
        # A sparse file, in which the footer is where it is in the whole.
        alone.seek(footer)
        shutil.copyfileobj(stream, alone)
        alone.flush()
        shared_trial().footer(Path(alone.name))
        with _parquet_file(Path(alone.name)) as file:
            metadata = file.metadata
            if metadata.num_row_groups:
                _check_columns_not_encrypted(file)
            with _errors_explained():
                schema = file.schema_arrow
    groups = tuple(_row_group(metadata.row_group(index), footer) for index in range(metadata.num_row_groups))
    return ParquetLayout(groups, (footer, size), schema)


def _row_group(group: pq.RowGroupMetaData, end: int) -> RowGroup:
    spans = []
    for column in map(group.column, range(group.num_columns)):
        start = column.data_page_offset
        if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
            start = column.dictionary_page_offset
        spans.append((start, start + column.total_compressed_size))
    start, stop = min((span[0] for span in spans), default=0), max((span[1] for span in spans), default=0)
    if not 0 <= start <= stop <= end:
        raise not_parquet("its footer places a row group outside of the file")
    return RowGroup(group.num_rows, start, min(stop + _PADDING_BYTES, end))


class EncryptedFile(JobError):
    """A Parquet file, or a column of one, that can be read with a key only."""


def not_parquet(problem: str) -> JobError:
    return JobError(f"The file cannot be read as Parquet ({problem}). Write or upload it again.")


def _in_nanoseconds(data_type: pa.DataType) -> pa.DataType:
    return pa.timestamp("ns", data_type.tz) if pa.types.is_timestamp(data_type) else data_type


@contextmanager
def _errors_explained() -> Iterator[None]:
    try:
        yield
    except MemoryError:  # Arrow's is an ArrowException, too
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        if "decrypt" in problem:
            raise EncryptedFile(f"The Parquet file is encrypted ({problem}). Write it without encryption.") from error
        raise not_parquet(problem) from error
