"""Opens plain and gzip text files: strict UTF-8 in lines or blocks, bounded, and deterministic bytes out."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from clip_operator.errors import JobError
from clip_operator.machine.disk import written_to

MAX_ROW_LENGTH = 256 * 1024 * 1024
"""The longest row that is accepted, so that memory stays bounded: bytes of a line, characters of anything longer."""

MAX_ROW_VALUES = 4_000_000
"""The most values that are accepted in a row: fields, elements, cells, and lines inside a CSV row,
counted by the commas and brackets in its text.

A value takes up to some 70 bytes of memory while its row is read, and as little as three characters in the file."""

BYTE_ORDER_MARK = "\ufeff"

_BLOCK_BYTES = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_COMPRESSION_LEVEL = 6
_EXCERPT_LENGTH = 80


def excerpt(text: str) -> str:
    """The start of a text on one line, for an error message."""
    start = "".join(char if char.isprintable() else " " for char in text[:_EXCERPT_LENGTH])
    return f"{start}…" if len(text) > _EXCERPT_LENGTH else start


def row_too_long(place: str, hint: str = "") -> JobError:
    """The error for a row over ``MAX_ROW_LENGTH``."""
    limit = f"{MAX_ROW_LENGTH // 1024**2} MiB"
    return JobError(f"{place} is larger than {limit}, the largest row that is accepted. {hint}".rstrip())


def check_values(text: str, place: str) -> None:
    """Refuse a row that is small as text but not in memory.

    :raises JobError: if the JSON text has more than ``MAX_ROW_VALUES`` commas and opening brackets.
    """
    # Of a shorter text not even all characters are too many, and that is nearly every row.
    if len(text) > MAX_ROW_VALUES and sum(map(text.count, ",[{")) > MAX_ROW_VALUES:
        raise too_many_values(place)


def too_many_values(place: str, hint: str = "") -> JobError:
    """The error for a row over ``MAX_ROW_VALUES``."""
    return JobError(f"{place} has more than {MAX_ROW_VALUES:,} values, the most that are accepted. {hint}".rstrip())


def byte_lines(source: Path | BinaryIO, compressed: bool) -> Iterator[bytes]:
    """The lines of a file, or of a stream, each with its own ending; only a line feed ends a line.

    :raises JobError: if the gzip data is broken, or a line is longer than ``MAX_ROW_LENGTH``.
    """
    with _opened(source, compressed) as stream:
        for number, line in enumerate(iter(partial(stream.readline, MAX_ROW_LENGTH + 1), b""), 1):
            if len(line) > MAX_ROW_LENGTH:
                raise row_too_long(f"line {number}", "If the rows are elements of one JSON array, name the file .json.")
            yield line


def read_lines(source: Path | BinaryIO, compressed: bool) -> Iterator[str]:
    """The text of ``byte_lines``.

    :raises JobError: if the gzip data is broken, or a line is not UTF-8 or longer than ``MAX_ROW_LENGTH``.
    """
    for number, line in enumerate(byte_lines(source, compressed), 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(number, error) from error
        yield text


def read_blocks(source: Path | BinaryIO, compressed: bool) -> Iterator[str]:
    """The text of a file, or of a stream, in blocks of about 1 MiB, cut anywhere between two characters.

    :raises JobError: if the gzip data is broken, or the text is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with _opened(source, compressed) as stream:
        block = b"start"
        while block:
            block = stream.read(_BLOCK_BYTES)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _not_utf8(line + error.object.count(b"\n", 0, error.start), error) from error
            line += block.count(b"\n")
            yield text


def _not_utf8(line: int, error: UnicodeDecodeError) -> JobError:
    text = f"line {line} is not UTF-8 text ({error.reason}, byte 0x{error.object[error.start]:02x})"
    if line == 1 and error.object.startswith(_GZIP_MAGIC):
        return JobError(f"{text}. The data is gzip-compressed: let the file name end in .gz, or unpack it once.")
    return JobError(f"{text}: {excerpt(error.object[:400].decode(errors='replace'))}")


@contextmanager
def _opened(source: Path | BinaryIO, compressed: bool) -> Iterator[BinaryIO]:
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        if not compressed:
            yield file
            return
        try:
            # The outer buffer is the one in C: lines straight from GzipFile cost a Python call each.
            yield cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=file), _BLOCK_BYTES))
        except gzip.BadGzipFile as error:
            raise JobError(f"The file name ends in .gz but the data is not whole gzip data ({error}).") from error
        except EOFError as error:
            raise JobError("The gzip data ends too early: the file was cut off. Write or upload it again.") from error
        except zlib.error as error:
            raise JobError(f"The gzip data is damaged ({error}). Write or upload the file again.") from error


def gzipped(target: BinaryIO) -> gzip.GzipFile:
    """A file whose bytes go to `target` compressed, without a time or a name: the same bytes in, the same bytes out.

    To be closed, which leaves the target open.
    """
    return gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, fileobj=target, mtime=0)


class TextOutput:
    """A new text file, plain or gzip. The gzip header holds neither time nor name: the same text, the same bytes.

    All methods raise :class:`JobError` where the disk does not take the file.
    """

    def __init__(self, path: Path, compressed: bool) -> None:
        self._path = path
        with written_to(path):
            self._file = path.open("wb")
        self._stream: BinaryIO | gzip.GzipFile = self._file
        if compressed:
            self._stream = gzipped(self._file)

    def write(self, text: str) -> None:
        """Append text, encoded as UTF-8."""
        with written_to(self._path):
            self._stream.write(text.encode())

    def close(self) -> None:
        """Complete the file."""
        with written_to(self._path):
            try:
                self._stream.close()
            finally:
                self._file.close()

    def discard(self) -> None:
        """Close and remove the file, whatever state it is in."""
        with suppress(JobError):
            self.close()
        self._path.unlink(missing_ok=True)
