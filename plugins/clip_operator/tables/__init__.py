"""Reads and writes dataset steps as local files: JSONL, JSON, CSV and Parquet, streamed and without loss.

A reader gives the rows in chunks that are still in their own encoding; a writer puts them into a new file together with
added columns and leaves everything else as it was. WebDataset's tars are read only. ``pyarrow`` is imported only when
a Parquet file is opened.

::

    with open_table(source, file_type_of(source.name), ["image_path", "text"]) as reader:
        with create_table(target, file_type_of(target.name), reader, {"clip_score": AddedType.FLOAT64}) as writer:
            for chunk in reader.chunks(1024):
                writer.write(chunk, {"clip_score": score(chunk.column("image_path"), chunk.column("text"))})

A table can be read and written in parts, too. A text is cut between its rows by :func:`cut_text`, Parquet between its
row groups, which :func:`parquet_layout` finds, and many files between any two of them. What the writers of consecutive
fragments give is, one behind the other, what a single writer would have given; Parquet is put together by
:func:`join_parquet`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from clip_operator.tables.csv.reader import CsvReader
from clip_operator.tables.csv.writer import CsvWriter
from clip_operator.tables.cutting import Cuts, Span, cut_text
from clip_operator.tables.file_types import FileType, TableFormat, check_conversion, file_type_of
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.json.array import JsonArrayReader
from clip_operator.tables.json.join import join_arrays
from clip_operator.tables.json.lines import JsonlReader
from clip_operator.tables.json.writers import ArrayWriter, LinesWriter, SameArrayWriter, SameLayoutWriter
from clip_operator.tables.parquet.row_groups import ParquetLayout, RowGroup
from clip_operator.tables.selection import Selection, create_selection
from clip_operator.tables.table import (
    AddedType,
    AddedValue,
    Chunk,
    TableReader,
    TableScan,
    TableWriter,
    UnreadableValue,
)
from clip_operator.tables.tar.reader import TarReader
from clip_operator.tables.text_files import gzipped

__all__ = [
    "WHOLE",
    "AddedType",
    "AddedValue",
    "Chunk",
    "Cuts",
    "FileType",
    "Fragment",
    "ParquetLayout",
    "RowGroup",
    "Selection",
    "Span",
    "TableFormat",
    "TableReader",
    "TableScan",
    "TableWriter",
    "UnreadableValue",
    "check_conversion",
    "check_same_columns",
    "create_selection",
    "create_table",
    "cut_text",
    "file_type_of",
    "gzipped",
    "join_arrays",
    "join_parquet",
    "open_table",
    "parquet_layout",
]


def open_table(
    path: Path | Sequence[Path],
    file_type: FileType,
    columns: Sequence[str] | None = None,
    *,
    fragment: Fragment = WHOLE,
    row_groups: range | None = None,
) -> TableReader:
    """Open a local file, or several as one table, for reading.

    :param path: a file; or one or more files that are whole tables each, whose rows come one behind the other. The text
        between their rows is then not all kept: every line of JSONL and CSV gets a line feed, only the first header
        stays, and a JSON array is written anew. CSV headers and Parquet schemas have to be equal. Errors name the file.
    :param columns: the columns whose values will be asked for, and any others that ``scan().columns`` must not miss;
        their values are kept ready while other fields stay text. In CSV and Parquet each may occur only once.
    :param fragment: of a single text file, which span of a table it is, cut as by :func:`cut_text`. A span of CSV
        has the header in front. Of several files, where they come among all of a table's files.
    :param row_groups: of a single Parquet file, the row groups to read; nothing is read of the others.
    :raises JobError: if a Parquet file is not readable, or has other columns than the first. Text formats are read
        later, by ``scan`` and ``chunks``.
    """
    if file_type.format is TableFormat.PARQUET:
        from clip_operator.tables.parquet.reader import ParquetReader

        return ParquetReader(path, file_type, columns, row_groups)
    if file_type.format is TableFormat.TAR:
        return TarReader(path, file_type)
    if file_type.format is TableFormat.CSV:
        return CsvReader(path, file_type, columns, fragment)
    if file_type.format is TableFormat.JSON:
        return JsonArrayReader(path, file_type, columns, fragment)
    return JsonlReader(path, file_type, columns, fragment)


def create_table(
    path: Path, file_type: FileType, like: TableReader, added: Mapping[str, AddedType], *, fragment: Fragment = WHOLE
) -> TableWriter:
    """Create a local file for all the rows of `like`, each with the added columns.

    :param like: the open input, whose chunks will be written.
    :param added: the new columns in order. They go behind the existing ones; where a column of the name exists, its
        values are replaced in place.
    :param fragment: the place of the rows in the table that the outputs of all fragments make up, one behind the other.
        ``WHOLE`` gives a table of its own, from a fragment, too. In Parquet every output is a table of its own. For
        JSON whose layout is not kept, see :func:`join_arrays`.
    :raises RequestError: if the file type cannot hold the input's rows as they are.
    :raises JobError: if the input's header or schema names a column more than once where that cannot be told apart.
    """
    check_conversion(like.file_type, file_type)
    if file_type.format is TableFormat.PARQUET:
        from clip_operator.tables.parquet.reader import ParquetReader
        from clip_operator.tables.parquet.writer import ParquetWriter

        if isinstance(like, ParquetReader):
            return ParquetWriter(path, added, like)
    if isinstance(like, TarReader) and file_type.format is TableFormat.PARQUET:
        from clip_operator.tables.tar.parquet_writer import TarParquetWriter

        return TarParquetWriter(path, added, like)
    if file_type.format is TableFormat.CSV and isinstance(like, CsvReader):
        return CsvWriter(path, file_type, added, like, fragment)
    if isinstance(like, CsvReader):
        # A JSON object with a key twice keeps only one of the cells in most readers.
        header = like.header()
        for name in header.names:
            header.index(name)
    if file_type.format is TableFormat.JSON:
        if isinstance(like, JsonArrayReader) and like.keeps_layout(fragment):
            return SameArrayWriter(path, file_type, added, like)
        return ArrayWriter(path, file_type, added, fragment)
    if isinstance(like, JsonlReader):
        return SameLayoutWriter(path, file_type, added)
    return LinesWriter(path, file_type, added)


def parquet_layout(stream: BinaryIO) -> ParquetLayout:
    """Find the row groups of a Parquet file; nothing is read but the footer and a little of the first row group.

    :param stream: the file; it has to be able to seek, and is not closed.
    :raises JobError: if it is not readable Parquet.
    """
    from clip_operator.tables.parquet.reader import read_parquet_layout

    return read_parquet_layout(stream)


def check_same_columns(layout: ParquetLayout, name: str, like: ParquetLayout, like_name: str) -> None:
    """Accept two Parquet files as parts of one table; their metadata may differ.

    :param name: what to call the file in an error, as in ``part-2.parquet``; and `like_name` the one it is compared to.
    :raises JobError: if the columns differ in name, type, order, or in whether they can be null.
    """
    from clip_operator.tables.parquet import columns

    columns.check_same_columns(layout.schema, name, like.schema, like_name)


def join_parquet(sources: Iterable[Path | BinaryIO | Callable[[], BinaryIO]], target: BinaryIO | Path) -> int:
    """Write the row groups of all sources to one Parquet file, in order and in their sizes; return how many rows.

    The first source's metadata is kept; codecs, dictionaries and INT96 are those of the first one with rows. No more
    than a row group is held.

    :param sources: at least one; a stream has to be able to seek, and is not closed. What opens a stream is called
        whenever its rows are read, and the stream is closed again: no two of them are open at a time.
    :param target: a stream need not be able to seek, and is not closed.
    :raises JobError: if a source is not readable, or has other columns than the first one.
    """
    from clip_operator.tables.parquet.writer import join

    return join(tuple(sources), target)
