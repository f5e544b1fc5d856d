"""Cuts a text table between its rows, in one pass over the stream, where the very readers see its rows end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from clip_operator.tables import csv
from clip_operator.tables.file_types import FileType
from clip_operator.tables.formats import FORMATS, TextFormat
from clip_operator.tables.text_files import MeasuredText


class Span(NamedTuple):
    """Consecutive rows of a table.

    :param start: where they begin; in bytes of the text, unpacked, where a text is cut.
    :param stop: where they end.
    :param first_row: the index of the first one in the whole table, from 0; None where it is not known.
    :param rows: how many there are; None where it is not known.
    """

    start: int
    stop: int
    first_row: int | None
    rows: int | None


@dataclass(frozen=True)
class Cuts:
    """A text table in spans, in order and without gaps. There is always one, if only with 0 rows.

    :param header_bytes: how much of the text comes before the first span: in CSV the header, with what stands
        before it. A span of CSV is read with its header in front, which is what :func:`header_of` returns.
    """

    header_bytes: int
    spans: tuple[Span, ...]


def header_of(stream: BinaryIO, file_type: FileType) -> bytes:
    """Return what stands in front of the rows of a CSV or TSV file, without which none of them can be read.

    :param stream: the table as it is stored, from its beginning, of which no more is read than that needs.
    :raises JobError: it cannot be read.
    """
    return csv.header_bytes(MeasuredText(stream, file_type))


def cut_text(stream: BinaryIO, file_type: FileType, rows: int) -> Cuts:
    """Cut a JSONL, JSON or CSV table into spans of this many rows, and one of the rest.

    What stands between two rows, such as a blank line or the comma in an array, is the start of the later one's
    span; what comes behind the last row belongs to the last span. Memory does not grow with the table.

    :param stream: the table as it is stored, from its beginning; unpacked on the way. Lines and blocks are read
        from it as they are needed, so it should be buffered. It is not closed.
    :param rows: the rows of each span but the last, at least 1.
    :raises JobError: what ``scan()`` raises, only that the text of JSONL rows is not looked at.
    :raises ValueError: if the format is not a text.
    """
    if rows < 1:
        raise ValueError(f"a span has at least one row, not {rows}")
    table_format = FORMATS[file_type.format]
    if not isinstance(table_format, TextFormat):
        raise ValueError(f"{file_type} is not cut as a text")
    text = MeasuredText(stream, file_type)
    ends = table_format.row_ends(text)
    header_bytes = next(ends)
    spans: list[Span] = []
    start = end = header_bytes
    first_row = count = 0
    for row_end in ends:
        if count == rows:
            spans.append(Span(start, end, first_row, rows))
            start, first_row, count = end, first_row + rows, 0
        count += 1
        end = row_end
    return Cuts(header_bytes, (*spans, Span(start, text.size, first_row, count)))
