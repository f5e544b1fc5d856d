"""Reads Parquet in record batches, with every column, type and piece of metadata as Arrow knows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from clip_operator.errors import JobError
from clip_operator.tables import table
from clip_operator.tables.file_types import FileType
from clip_operator.tables.parquet_validity import check_sound
from clip_operator.tables.parquet_values import LargestValues

MAX_BATCH_BYTES = 64 * 1024 * 1024
"""No more rows are read at once than fit into this much memory, whatever the footer says of their size."""


class ParquetChunk:
    """Consecutive rows of all columns, in one or more record batches: row groups may be smaller than a chunk."""

    def __init__(self, first_row: int, batches: Sequence[pa.RecordBatch]) -> None:
        self._first_row = first_row
        self._rows: int = sum(batch.num_rows for batch in batches)
        self.batches = tuple(batches)

    @property
    def first_row(self) -> int:
        """The index of the first row in the table, from 0."""
        return self._first_row

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(batch.nbytes for batch in self.batches)

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> list[object]:
        """The Python values of one column (binary as bytes, struct as dict); None where null or without the column.

        :class:`UnreadableValue` where Python has no such value.
        """
        values: list[object] = []
        for batch in self.batches:
            index = column_index(batch.schema, name)
            values += [None] * batch.num_rows if index is None else _python_values(batch.column(index))
        return values


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


class ParquetReader:
    """A Parquet file.

    :param columns: names that may each occur only once in the schema.
    :raises JobError: if the file is not readable Parquet, or names one of the columns twice.
    """

    def __init__(self, path: Path, file_type: FileType, columns: Sequence[str] | None) -> None:
        self._file_type = file_type
        self._path = path
        with _in_words():
            self._file = pq.ParquetFile(path)
            self.metadata: pq.FileMetaData = self._file.metadata
            self.schema: pa.Schema = self._file.schema_arrow
        groups = [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]
        if sum(groups) != self.metadata.num_rows or min(groups, default=0) < 0:
            raise _not_parquet("its footer states another number of rows than its row groups do")
        if groups:
            # Where columns are encrypted, this raises; to ask the footer about them would end the whole process.
            with _in_words():
                next(self._file.iter_batches(batch_size=1, row_groups=[0]), None)
        self._largest_values = LargestValues(path, self.metadata)
        for name in columns or ():
            column_index(self.schema, name)

    @property
    def file_type(self) -> FileType:
        """The format of the file."""
        return self._file_type

    def scan(self) -> table.TableScan:
        """Rows and columns as the footer states them."""
        return table.TableScan(self.metadata.num_rows, tuple(self.schema.names))

    def chunks(self, rows: int) -> Iterator[ParquetChunk]:
        """All rows in order, at most `rows` in a chunk. Chunks and row groups end independently.

        :raises JobError: if the data is damaged.
        """
        rows = min(rows, self._rows_that_fit())
        first_row = held = size = 0
        batches: list[pa.RecordBatch] = []
        for batch in self._batches(rows):
            while batch.num_rows:
                batches.append(batch.slice(0, rows - held))
                held += batches[-1].num_rows
                size += batches[-1].nbytes
                batch = batch.slice(batches[-1].num_rows)
                if held == rows or size >= MAX_BATCH_BYTES:
                    yield ParquetChunk(first_row, batches)
                    first_row += held
                    held = size = 0
                    batches = []
        if batches:
            yield ParquetChunk(first_row, batches)

    def _batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        # Row group by row group, because Arrow cannot put nested dictionaries of two row groups into one batch.
        for group in range(self.metadata.num_row_groups):
            self._check_int96(group)
            with _in_words():
                largest = self._largest_values.of(group)
            rows_at_once = max(1, min(rows, MAX_BATCH_BYTES // max(1, largest)))
            batches = self._file.iter_batches(batch_size=rows_at_once, row_groups=[group])
            rows_left: int = self.metadata.row_group(group).num_rows
            while True:
                with _in_words():
                    batch = next(batches, None)
                    if batch is None:
                        break
                    check_sound(batch)
                rows_left -= batch.num_rows
                if rows_left < 0:
                    break
                yield batch
            if rows_left:
                raise _not_parquet(f"row group {group} holds another number of rows than its footer states")
            # Else Arrow keeps what it has freed, and memory grows with the number of row groups.
            pa.default_memory_pool().release_unused()

    def _check_int96(self, group: int) -> None:
        """Refuse what Arrow alters silently: an INT96 time outside the range of 64-bit nanoseconds wraps around."""
        leaves = [self.metadata.schema.column(index) for index in range(self.metadata.num_columns)]
        paths = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
        if not paths:
            return
        with _in_words(), pq.ParquetFile(self._path, coerce_int96_timestamp_unit="us") as in_microseconds:
            for batch in in_microseconds.iter_batches(row_groups=[group], columns=paths):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    try:
                        column.cast(_in_nanoseconds(column.type))
                    except pa.ArrowInvalid as error:
                        raise JobError(
                            f"The Parquet column {name!r} holds times before 1677 or after 2262 in the deprecated type "
                            "INT96, which cannot be read exactly. Write the column as TIMESTAMP(MICROS)."
                        ) from error

    def _rows_that_fit(self) -> int:
        """How many rows of the average size of the heaviest row group make up a full chunk."""
        groups = [self.metadata.row_group(index) for index in range(self.metadata.num_row_groups)]
        heaviest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
        return max(1, int(table.CHUNK_BYTES / max(1.0, heaviest)))

    def close(self) -> None:
        """Close the file."""
        self._largest_values.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _not_parquet(problem: str) -> JobError:
    return JobError(f"The file cannot be read as Parquet ({problem}). Write or upload it again.")


def column_index(schema: pa.Schema, name: str) -> int | None:
    """The position of a top-level column, None if there is none.

    :raises JobError: if several columns have the name.
    """
    indices = schema.get_all_field_indices(name)
    if len(indices) > 1:
        raise JobError(f"The Parquet schema names the column {name!r} {len(indices)} times; rename all but one.")
    return int(indices[0]) if indices else None


def _in_nanoseconds(data_type: pa.DataType) -> pa.DataType:
    """The type with nanoseconds in place of microseconds, for what INT96 columns nest in."""
    if pa.types.is_timestamp(data_type):
        return pa.timestamp("ns", data_type.tz)
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(_in_nanoseconds(field.type)) for field in data_type])
    if pa.types.is_list(data_type):
        return pa.list_(data_type.value_field.with_type(_in_nanoseconds(data_type.value_type)))
    return data_type


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        if "decrypt" in problem:
            raise JobError(f"The Parquet file is encrypted ({problem}). Write it without encryption.") from error
        raise _not_parquet(problem) from error
