"""Finds out how large a row of a Parquet file can be, which its footer does not tell where values are shared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_operator.tables.parquet.types import in_parquet
from clip_operator.tables.parquet.validity import check_sound

_WALK_BYTES = 128 * 1024 * 1024
"""No more rows are measured at once than can unfold to this much memory."""

_MOST_ROWS = 1024

# How the format calls values that begin as the one before, that stand behind their lengths, that refer to a dictionary.
# Arrow cannot look for a dictionary in a column that has a page of the first or second kind.
_PREFIXES = "DELTA_BYTE_ARRAY"
_LENGTHS = "DELTA_LENGTH_BYTE_ARRAY"
_DICTIONARIES = {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}


class LargestValues:
    """The sizes of the largest values of each row group, over the columns that can share one value among many rows.

    Such a column has a dictionary, or its values begin as the ones before them (``DELTA_BYTE_ARRAY``), and a file of a
    thousand bytes may unfold to gigabytes: rows that all refer to one long text. Columns inside of lists are left out:
    their rows have no bound at all.

    :param source: the Parquet file.
    :param metadata: its footer.
    """

    def __init__(self, source: Path | BinaryIO, metadata: pq.FileMetaData) -> None:
        self._source = source
        self._metadata = metadata
        schema = metadata.schema
        leaves = [schema.column(index) for index in range(len(schema.names))]
        once_a_row = [(index, leaf) for index, leaf in enumerate(leaves) if leaf.max_repetition_level == 0]
        self._shared = {leaf.path: index for index, leaf in once_a_row if leaf.physical_type == "BYTE_ARRAY"}
        fixed = (leaf.length for _, leaf in once_a_row if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY")
        self._fixed_bytes: int = sum(fixed)
        self._file: pq.ParquetFile | None = None

    def of(self, group: int) -> int:
        """Return how many bytes those columns' values take in a row of this row group at most.

        :raises pyarrow.ArrowException: if the row group is damaged.
        """
        row_group = self._metadata.row_group(group)
        if not self._shared or row_group.num_rows < 2:
            return self._fixed_bytes
        largest, with_dictionary = self._fixed_bytes, []
        for path, index in self._shared.items():
            chunk = row_group.column(index)
            if _PREFIXES in chunk.encodings:
                largest += self._longest_unfolded(group, path, chunk.total_uncompressed_size)
            elif _LENGTHS not in chunk.encodings or _DICTIONARIES.intersection(chunk.encodings):
                with_dictionary.append(path)
        return largest + self._longest_of_dictionaries(group, with_dictionary)

    def _longest_of_dictionaries(self, group: int, paths: Sequence[str]) -> int:
        """Read one row, with which Arrow reads the whole dictionary."""
        if not paths:
            return 0
        if self._file is None:
            self._file = pq.ParquetFile(self._source, metadata=self._metadata, read_dictionary=list(self._shared))
        first = next(self._file.iter_batches(batch_size=1, row_groups=[group], columns=paths), None)
        if first is None:
            return 0
        check_sound(first)
        return sum(_longest(column) for column in first.columns)

    def _longest_unfolded(self, group: int, path: str, unfolded_bytes: int) -> int:
        """Read the column, few rows at a time: none is larger than all that the column's pages hold."""
        rows = max(1, _WALK_BYTES // max(1, unfolded_bytes))
        with closing(pq.ParquetFile(self._source, metadata=self._metadata)) as file:
            batches = file.iter_batches(batch_size=min(rows, _MOST_ROWS), row_groups=[group], columns=[path])
            return max((_longest(batch.column(0)) for batch in batches), default=0)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _longest(array: pa.Array) -> int:
    """Return the length in bytes of the longest text in a column or in its dictionary."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_struct(array.type):
        return sum(_longest(array.field(index)) for index in range(array.type.num_fields))
    if pa.types.is_dictionary(array.type):
        array = array.dictionary
    plain = in_parquet(array.type)
    if plain not in (pa.string(), pa.binary()):  # a decimal, which is short
        return 0
    return int(pc.max(pc.binary_length(array.cast(plain))).as_py() or 0)
