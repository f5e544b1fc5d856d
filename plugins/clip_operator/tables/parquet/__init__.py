"""Parquet, read and written with its types, metadata and row groups kept; pyarrow is imported by the first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clip_operator.tables.file_types import FileType
from clip_operator.tables.fragment import Fragment
from clip_operator.tables.parquet.row_groups import ParquetLayout
from clip_operator.tables.table import AddedType, TableReader, TableWriter

if TYPE_CHECKING:
    import pyarrow as pa


def open_reader(
    path: Path | Sequence[Path],
    file_type: FileType,
    columns: Sequence[str] | None,
    _fragment: Fragment,
    row_groups: range | None,
    schema: pa.Schema | None,
    _pair: tuple[str, str] | None,
    /,
) -> TableReader:
    """Open a Parquet file, some row groups of one, or several as one table."""
    from clip_operator.tables.parquet.reader import ParquetReader

    return ParquetReader(path, file_type, columns, row_groups, schema)


def create_writer(
    path: Path, _file_type: FileType, added: Mapping[str, AddedType], like: TableReader, _fragment: Fragment, /
) -> TableWriter:
    """Create a Parquet file of its own, also for a fragment."""
    from clip_operator.tables.parquet.writer import ParquetWriter, template_of

    return ParquetWriter(path, added, template_of(like))


def create_selection(path: Path, like: TableReader, /) -> TableWriter:
    """Create a Parquet file whose row groups are as large as the input's largest."""
    from clip_operator.tables.parquet.writer import ParquetSelectionWriter, template_of

    return ParquetSelectionWriter(path, template_of(like))


def parquet_layout(stream: BinaryIO) -> ParquetLayout:
    """Find the row groups of a Parquet file; nothing is read but the footer and a little of the first row group.

    :param stream: the file; it has to be able to seek, and is not closed.
    :raises JobError: if it is not readable Parquet.
    """
    from clip_operator.tables.parquet.reader import read_layout

    return read_layout(stream)


def unified_schema(parts: Iterable[tuple[str, pa.Schema]]) -> tuple[pa.Schema, list[int]]:
    """Return the columns of the table that files make up, and which of the files, from 0, suffice to tell them.

    :param parts: what each file is called, and its own columns; at least one.
    :raises JobError: if a column has types of which none holds the values of both; names the two files.
    """
    from clip_operator.tables.parquet.unified import UnifiedColumns

    unified = UnifiedColumns()
    telling = [index for index, (name, schema) in enumerate(parts) if unified.add(schema, name)]
    return unified.schema, telling


def join_parquet(sources: Iterable[Path | BinaryIO | Callable[[], BinaryIO]], target: BinaryIO | Path) -> int:
    """Write the row groups of all sources to one Parquet file, in order and in their sizes; return how many rows.

    The first source's metadata is kept; codecs, dictionaries and INT96 are those of the first one with rows. Columns
    that differ become one where nothing is lost. No more than a row group is held.

    :param sources: at least one; a stream has to be able to seek, and is not closed. What opens a stream is called
        whenever its rows are read, and the stream is closed again: no two of them are open at a time.
    :param target: a stream need not be able to seek, and is not closed.
    :raises JobError: if a source is not readable, or has columns that do not go with those before.
    """
    from clip_operator.tables.parquet.writer import join

    return join(tuple(sources), target)
