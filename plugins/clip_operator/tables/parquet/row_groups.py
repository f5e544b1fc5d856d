"""Where the row groups of a Parquet file lie in its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class RowGroup:
    """One row group: its number of rows, and the bytes [start, stop) of the file that it is read from."""

    rows: int
    start: int
    stop: int


@dataclass(frozen=True)
class ParquetLayout:
    """A Parquet file as its footer describes it.

    :param row_groups: in the order in which they are read.
    :param footer: the bytes [start, stop) of the footer, its length and the format's mark, up to the end of the file.
    :param schema: its columns.
    """

    row_groups: tuple[RowGroup, ...]
    footer: tuple[int, int]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(group.rows for group in self.row_groups)
