"""Writes the rows of WebDataset tars to Parquet, all of their fields as strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from clip_operator.tables.parquet.reader import ParquetChunk
from clip_operator.tables.parquet.writer import ParquetWriter
from clip_operator.tables.table import AddedType, AddedValue, Chunk
from clip_operator.tables.tar.reader import COLUMNS, MEMBERS, TarChunk, TarReader

_GROUP_ROWS = 65_536
_SCHEMA = pa.schema([(name, pa.list_(pa.string()) if name == MEMBERS else pa.string()) for name in COLUMNS])


class TarParquetWriter(ParquetWriter):
    """A tar to Parquet. A field that a row has not is null.

    :param like: the input, whose rows are counted for the sizes of the row groups.
    """

    def __init__(self, path: Path, added: Mapping[str, AddedType], like: TarReader) -> None:
        super().__init__(path, added, _Rows(like.scan().rows))

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's rows with their new values.

        :raises ValueError: if the columns or their lengths are not the announced ones, or a number is not finite.
        """
        if not isinstance(chunk, TarChunk):
            raise TypeError(f"a {type(chunk).__name__} does not come from the table that this one is like")
        batch = pa.RecordBatch.from_pylist([sample.fields for sample in chunk.samples], _SCHEMA)
        super().write(ParquetChunk(chunk.first_row, [batch]), added)


class _Rows:
    schema = _SCHEMA
    metadata = None

    def __init__(self, rows: int) -> None:
        whole, rest = divmod(rows, _GROUP_ROWS)
        self.group_sizes = [_GROUP_ROWS] * whole + [rest] * bool(rest)
