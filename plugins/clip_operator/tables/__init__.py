"""Reads and writes dataset steps as local files: JSONL, JSON, CSV and Parquet, streamed and without loss.

A reader gives the rows in chunks that are still in their own encoding; a writer puts them into a new file together with
added columns and leaves everything else as it was. ``pyarrow`` is imported only when a Parquet file is opened.

::

    with open_table(source, file_type_of(source.name), ["image_path", "text"]) as reader:
        with create_table(target, file_type_of(target.name), reader, {"clip_score": AddedType.FLOAT64}) as writer:
            for chunk in reader.chunks(1024):
                writer.write(chunk, {"clip_score": score(chunk.column("image_path"), chunk.column("text"))})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clip_operator.tables.csv_reader import CsvReader
from clip_operator.tables.csv_writer import CsvWriter
from clip_operator.tables.file_types import FileType, TableFormat, check_conversion, file_type_of
from clip_operator.tables.json_array import JsonArrayReader
from clip_operator.tables.json_writers import ArrayWriter, LinesWriter, SameArrayWriter, SameLayoutWriter
from clip_operator.tables.jsonl import JsonlReader
from clip_operator.tables.table import (
    AddedType,
    AddedValue,
    Chunk,
    TableReader,
    TableScan,
    TableWriter,
    UnreadableValue,
)

__all__ = [
    "AddedType",
    "AddedValue",
    "Chunk",
    "FileType",
    "TableFormat",
    "TableReader",
    "TableScan",
    "TableWriter",
    "UnreadableValue",
    "check_conversion",
    "create_table",
    "file_type_of",
    "open_table",
]


def open_table(path: Path, file_type: FileType, columns: Sequence[str] | None = None) -> TableReader:
    """Open a local file for reading.

    :param columns: the columns whose values will be asked for, and any others that ``scan().columns`` must not miss;
        their values are kept ready while other fields stay text. In CSV and Parquet each may occur only once.
    :raises JobError: if a Parquet file is not readable. Text formats are read later, by ``scan`` and ``chunks``.
    """
    if file_type.format is TableFormat.PARQUET:
        from clip_operator.tables.parquet_reader import ParquetReader

        return ParquetReader(path, file_type, columns)
    if file_type.format is TableFormat.CSV:
        return CsvReader(path, file_type, columns)
    if file_type.format is TableFormat.JSON:
        return JsonArrayReader(path, file_type, columns)
    return JsonlReader(path, file_type, columns)


def create_table(path: Path, file_type: FileType, like: TableReader, added: Mapping[str, AddedType]) -> TableWriter:
    """Create a local file for all the rows of `like`, each with the added columns.

    :param like: the open input, whose chunks will be written.
    :param added: the new columns in order. They go behind the existing ones; where a column of the name exists, its
        values are replaced in place.
    :raises RequestError: if the file type cannot hold the input's rows as they are.
    :raises JobError: if the input's header or schema names a column more than once where that cannot be told apart.
    """
    check_conversion(like.file_type, file_type)
    if file_type.format is TableFormat.PARQUET:
        from clip_operator.tables.parquet_reader import ParquetReader
        from clip_operator.tables.parquet_writer import ParquetWriter

        if isinstance(like, ParquetReader):
            return ParquetWriter(path, file_type, added, like)
    if file_type.format is TableFormat.CSV and isinstance(like, CsvReader):
        return CsvWriter(path, file_type, added, like)
    if isinstance(like, CsvReader):
        # A JSON object with a key twice keeps only one of the cells in most readers.
        header = like.header()
        for name in header.names:
            header.index(name)
    if file_type.format is TableFormat.JSON:
        if isinstance(like, JsonArrayReader):
            return SameArrayWriter(path, file_type, added, like)
        return ArrayWriter(path, file_type, added)
    if isinstance(like, JsonlReader):
        return SameLayoutWriter(path, file_type, added)
    return LinesWriter(path, file_type, added)
