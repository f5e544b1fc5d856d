"""CSV (RFC 4180) and its dialects, read and written with every byte between the fields kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from clip_operator.tables.csv.reader import CsvReader, header_and_rows
from clip_operator.tables.csv.writer import CsvWriter
from clip_operator.tables.file_types import FileType
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.table import AddedType, TableReader, TableWriter
from clip_operator.tables.text_files import MeasuredText

_FEW_BYTES = 64 << 10  # a header is hardly ever longer

open_reader: Callable[..., TableReader] = CsvReader


def create_writer(
    path: Path, file_type: FileType, added: Mapping[str, AddedType], like: TableReader, fragment: Fragment, /
) -> TableWriter:
    """Create a CSV or TSV file, which only the same becomes."""
    assert isinstance(like, CsvReader)
    return CsvWriter(path, file_type, added, like, fragment)


def create_selection(path: Path, like: TableReader, /) -> TableWriter:
    """Create a CSV file with the header, for records that stay as they are."""
    return create_writer(path, like.file_type, {}, like, WHOLE)


def row_ends(text: MeasuredText, /) -> Iterator[int]:
    """Yield where the header ends, 0 where there is none, and then where each record ends."""
    header, records = header_and_rows(lines := text.lines(), text.file_type)
    yield lines.size if header.record else len(header.to_bytes())
    for _ in records:
        yield lines.size


def header_bytes(text: MeasuredText, /) -> bytes:
    """Return the header, with what tells of the encoding and the delimiter in front of it, if anything does."""
    header, _ = header_and_rows(text.lines(_FEW_BYTES), text.file_type)
    return header.to_bytes()
