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

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> list[object]:
        """The Python values of one column (binary as bytes, struct as dict); None where null or without the column."""
        values: list[object] = []
        for batch in self.batches:
            index = column_index(batch.schema, name)
            values += [None] * batch.num_rows if index is None else batch.column(index).to_pylist()
        return values


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
        first_row = 0
        batches: list[pa.RecordBatch] = []
        room = rows
        for batch in self._batches(rows):
            while batch.num_rows:
                batches.append(batch.slice(0, room))
                room -= batches[-1].num_rows
                batch = batch.slice(batches[-1].num_rows)
                if room == 0:
                    yield ParquetChunk(first_row, batches)
                    first_row += rows
                    batches, room = [], rows
        if batches:
            yield ParquetChunk(first_row, batches)

    def _batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        # Row group by row group, because Arrow cannot put nested dictionaries of two row groups into one batch.
        for group in range(self.metadata.num_row_groups):
            self._check_int96(group)
            batches = self._file.iter_batches(batch_size=rows, row_groups=[group])
            while True:
                with _in_words():
                    batch = next(batches, None)
                if batch is None:
                    break
                yield batch
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
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"The file cannot be read as Parquet ({error}). Write or upload it again.") from error
