"""Reads the header of a CSV file, of which no more than that is needed, from its start."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from clip_operator.errors import Cancelled, JobError
from clip_operator.tables import FileType, TableFormat
from clip_operator.tables.csv.reader import CsvReader
from clip_operator.tables.text_files import BYTE_ORDER_MARK, MAX_ROW_LENGTH

_FIRST_BYTES = 64 << 10
_MARK = BYTE_ORDER_MARK.encode()


def read_csv_header(text: BinaryIO, scratch: Path) -> bytes:
    """Return the first record with its line ending, and the byte order mark if there is one.

    It is found by the parser that reads the rows, for a header may have line breaks inside quotes, too.

    :param text: the text of the file, from its start.
    :param scratch: a local file that may be written and removed.
    :raises JobError: it is not CSV.
    """
    start, wanted = b"", _FIRST_BYTES
    try:
        while True:
            start += text.read(wanted - len(start))
            is_all = len(start) < wanted
            scratch.write_bytes(start)
            try:
                header = CsvReader(scratch, FileType(TableFormat.CSV)).header().text.encode()
            except Cancelled:
                raise
            except JobError:  # perhaps only because the text is cut off here
                if is_all or len(start) > MAX_ROW_LENGTH:
                    raise
            else:
                # Where nothing follows the header, it may be cut off. Blank lines before it are not its own.
                if is_all or len(start.removeprefix(_MARK).lstrip(b"\r\n")) > len(header.removeprefix(_MARK)):
                    return header
            wanted *= 2
    finally:
        scratch.unlink(missing_ok=True)
