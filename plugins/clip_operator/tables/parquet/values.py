"""Finds out how large a row of a Parquet file can be, which its footer does not tell where values are shared."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_operator.tables.parquet.validity import check_sound


class LargestValues:
    """The sizes of the largest values of each row group, over the columns that can share one value among many rows.

    Such a column has a dictionary, and a file of a thousand bytes may unfold to gigabytes: rows that all refer to one
    long text. Columns inside of lists are left out: their rows have no bound at all.

    :param source: the Parquet file.
    :param metadata: its footer.
    """

    def __init__(self, source: Path | BinaryIO, metadata: pq.FileMetaData) -> None:
        self._source = source
        self._metadata = metadata
        schema = metadata.schema
        leaves = [schema.column(index) for index in range(len(schema.names))]
        once_a_row = [leaf for leaf in leaves if leaf.max_repetition_level == 0]
        self._shared = [leaf.path for leaf in once_a_row if leaf.physical_type == "BYTE_ARRAY"]
        self._fixed_bytes: int = sum(leaf.length for leaf in once_a_row if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY")
        self._file: pq.ParquetFile | None = None

    def of(self, group: int) -> int:
        """Return how many bytes those columns' values take in a row of this row group at most.

        :raises pyarrow.ArrowException: if the row group is damaged.
        """
        if not self._shared or self._metadata.row_group(group).num_rows < 2:
            return self._fixed_bytes
        if self._file is None:
            self._file = pq.ParquetFile(self._source, read_dictionary=self._shared)
        first = next(self._file.iter_batches(batch_size=1, row_groups=[group], columns=self._shared), None)
        if first is None:
            return self._fixed_bytes
        check_sound(first)
        return self._fixed_bytes + sum(_longest(column) for column in first.columns)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _longest(array: pa.Array) -> int:
    """Return the length in bytes of the longest entry of the dictionaries in a column."""
    if pa.types.is_struct(array.type):
        return sum(_longest(array.field(index)) for index in range(array.type.num_fields))
    if not pa.types.is_dictionary(array.type):
        return 0
    return int(pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
