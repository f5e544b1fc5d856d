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
    """Consecutive rows as one record batch of all columns."""

    def __init__(self, first_row: int, batch: pa.RecordBatch) -> None:
        self._first_row = first_row
        self.batch = batch

    @property
    def first_row(self) -> int:
        """The index of the first row in the table, from 0."""
        return self._first_row

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def column(self, name: str) -> list[object]:
        """The Python values of one column (binary as bytes, struct as dict); None where null or without the column."""
        if column_index(self.batch.schema, name) is None:
            return [None] * len(self)
        values: list[object] = self.batch.column(name).to_pylist()
        return values


class ParquetReader:
    """A Parquet file.

    :param columns: names that may each occur only once in the schema.
    :raises JobError: if the file is not readable Parquet, or names one of the columns twice.
    """

    def __init__(self, path: Path, file_type: FileType, columns: Sequence[str] | None) -> None:
        self._file_type = file_type
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
        first_row = 0
        batches = self._file.iter_batches(batch_size=min(rows, self._rows_that_fit()))
        while True:
            with _in_words():
                batch = next(batches, None)
            if batch is None:
                return
            if batch.num_rows:
                yield ParquetChunk(first_row, batch)
                first_row += batch.num_rows

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


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"The file cannot be read as Parquet ({error}). Write or upload it again.") from error
