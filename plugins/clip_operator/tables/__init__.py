"""Reads and writes dataset steps as local files: JSONL, JSON, CSV and Parquet, streamed and without loss.

A reader gives the rows in chunks that are still in their own encoding; a writer puts them into a new file together with
added columns and leaves everything else as it was. WebDataset's tars are read only. ``pyarrow`` is imported only when
a Parquet file is opened.

::

    with open_table(source, file_type_of(source.name), ["image_path", "text"]) as reader:
        with create_table(target, file_type_of(target.name), reader, {"clip_score": AddedType.FLOAT64}) as writer:
            for chunk in reader.chunks(1024):
                writer.write(chunk, {"clip_score": score(chunk.column("image_path"), chunk.column("text"))})

A format is a module with the doors of ``formats.Format``. Another one takes a folder, a line in ``formats.FORMATS``,
and its names in ``file_types``.

A table can be read and written in parts, too. A text is cut between its rows by :func:`cut_text`, Parquet between its
row groups, which :func:`parquet_layout` finds, and many files between any two of them. What the writers of consecutive
fragments give is, one behind the other, what a single writer would have given; Parquet is put together by
:func:`join_parquet`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clip_operator.tables.cells import held, sole
from clip_operator.tables.compression import NotUnpacked, packed, unpacked
from clip_operator.tables.cutting import Cuts, Span, cut_text, header_of
from clip_operator.tables.file_types import (
    DELIMITED,
    Compression,
    FileType,
    TableFormat,
    check_conversion,
    file_type_of,
)
from clip_operator.tables.formats import FORMATS
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.json.array import join_arrays
from clip_operator.tables.json.lines import is_lines
from clip_operator.tables.parquet import join_parquet, parquet_layout, unified_schema
from clip_operator.tables.parquet.row_groups import ParquetLayout, RowGroup
from clip_operator.tables.partitions import PartitionedReader, PartitionedWriter, Partitions
from clip_operator.tables.paths import path_of, value_at
from clip_operator.tables.table import (
    AddedType,
    AddedValue,
    Chunk,
    TableReader,
    TableScan,
    TableWriter,
    UnreadableValue,
)
from clip_operator.tables.tar.sample import KEY
from clip_operator.tables.text_files import read_blocks

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "DELIMITED",
    "WHOLE",
    "AddedType",
    "AddedValue",
    "Chunk",
    "Compression",
    "Cuts",
    "FileType",
    "Fragment",
    "NotUnpacked",
    "ParquetLayout",
    "Partitions",
    "RowGroup",
    "Span",
    "TableFormat",
    "TableReader",
    "TableScan",
    "TableWriter",
    "UnreadableValue",
    "check_conversion",
    "create_selection",
    "create_table",
    "cut_text",
    "file_type_of",
    "header_of",
    "held",
    "is_json_lines",
    "join_arrays",
    "join_parquet",
    "open_table",
    "packed",
    "parquet_layout",
    "path_of",
    "sole",
    "unified_schema",
    "unpacked",
    "value_at",
]

_LOOKED_AT_BYTES = 16 << 10  # at a time, where the start of a file tells what it is


def open_table(
    path: Path | Sequence[Path],
    file_type: FileType,
    columns: Sequence[str] | None = None,
    *,
    fragment: Fragment = WHOLE,
    row_groups: range | None = None,
    schema: pa.Schema | None = None,
    partitions: Partitions | None = None,
    pair: tuple[str, str] | None = None,
) -> TableReader:
    """Open a local file, or several as one table, for reading.

    :param path: a file; or one or more files that are whole tables each, whose rows come one behind the other. The text
        between their rows is then not all kept: every line of JSONL and CSV gets a line feed, only the first header
        stays, and a JSON array is written anew. CSV headers have to be equal; Parquet's columns become one schema where
        every value can stay as it is. Errors name the file.
    :param columns: the columns whose values will be asked for, and any others that ``scan().columns`` must not miss;
        their values are kept ready while other fields stay text. In CSV and Parquet each may occur only once.
    :param fragment: of a single text file, which span of a table it is, cut as by :func:`cut_text`. A span of CSV
        has the header in front. Of several files, where they come among all of a table's files.
    :param row_groups: of a single Parquet file, the row groups to read; nothing is read of the others.
    :param schema: of Parquet files that are a part of all the files of a table, the columns of the whole, as
        :func:`unified_schema` finds them.
    :param partitions: of several files, columns that they have by the folders that they are from. They stand behind the
        others, and go into what is written.
    :param pair: of tars, what the image and the caption are called: beside columns that every tar has, the ending of a
        file (``img``), or a field of the .json file (``json.prompt``).
    :raises JobError: if a Parquet file is not readable, or has columns that do not go with the others'. Text formats
        are read later, by ``scan`` and ``chunks``.
    """
    of_folders = () if partitions is None else partitions.types
    named = None if columns is None else (*columns, *of_folders)
    if pair is not None:
        image, text = (KEY if name in of_folders else name for name in pair)  # which every row has, too
        pair = image, text
    reader = FORMATS[file_type.format].open_reader(path, file_type, named, fragment, row_groups, schema, pair)
    return reader if partitions is None else PartitionedReader(reader, partitions)


def is_json_lines(stream: BinaryIO, file_type: FileType) -> bool | None:
    """Tell whether JSON has one object a line, and is not one value; None where it cannot be told from one object.

    Little more than the first line is read.

    :param stream: the text as it is stored, from its beginning.
    :raises JobError: it is not UTF-8, or cannot be unpacked.
    """
    return is_lines(read_blocks(stream, file_type.compression, _LOOKED_AT_BYTES))


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
    if isinstance(like, PartitionedReader):
        of_folders = like.added
        writer = create_table(path, file_type, like.table, of_folders | dict(added), fragment=fragment)
        return PartitionedWriter(writer, list(of_folders))
    return FORMATS[file_type.format].create_writer(path, file_type, added, like, fragment)


def create_selection(path: Path, like: TableReader) -> TableWriter:
    """Create a local file, of the same type as ``like``, for some of its rows. With none it is a table without rows.

    What is written are chunks of ``like``, or what they ``select``, without added columns. Every row is byte for byte
    what it was. CSV keeps its header, and JSONL each line's white space and line ending; the elements of a JSON array
    come to stand on a line each, in the object that the array was in. Parquet keeps schema, metadata and codecs, in row
    groups of the size of the input's largest.

    :param like: the open table: one file, and all of it.
    """
    return FORMATS[like.file_type.format].create_selection(path, like)
