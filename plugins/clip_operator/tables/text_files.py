"""Opens plain and compressed text files: strict text in lines or blocks, bounded, and deterministic bytes out."""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import AnyStr, BinaryIO

from clip_operator.errors import JobError
from clip_operator.tables.compression import hint_of_magic, unpacked
from clip_operator.tables.file_types import Compression, FileType

MAX_ROW_LENGTH = 256 * 1024 * 1024
"""The longest row that is accepted, so that memory stays bounded: bytes of memory that its text takes.

That is a byte for a character of ASCII, but in a text with an emoji four for every one of its characters."""

MAX_ROW_VALUES = 4_000_000
"""The most values that are accepted in a row: fields, elements, cells, and lines inside a CSV row,
counted by the commas and brackets in its text.

A value takes up to some 70 bytes of memory while its row is read, and as little as three characters in the file."""

BYTE_ORDER_MARK = "\ufeff"

_BYTE_ORDERS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_LONGEST_MARK = len(codecs.BOM_UTF8)
_BLOCK_BYTES = 1024 * 1024
_MOST_WIDTH = 4
_SHORT = 1024  # in longer texts, what Python adds to each of them is nothing
_CONTINUING = bytes(range(0x80, 0xC0))
_WIDTHS = ((re.compile(rb"[\xf0-\xff]"), 4), (re.compile(rb"[\xc4-\xef]"), 2))  # by bytes that begin a character


def row_too_long(place: str, hint: str = "", most: int = 0) -> JobError:
    """Return the error for a row over ``MAX_ROW_LENGTH``, or over ``most``."""
    limit = f"{(most or MAX_ROW_LENGTH) // 1024**2} MiB"
    return JobError(f"{place} is larger than {limit}, the largest row that is accepted. {hint}".rstrip())


def width_of(text: str) -> int:
    """Return how many bytes of memory each character of a text takes: as many as its widest one needs."""
    if text.isascii():
        return 1
    if len(text) > _SHORT:
        return sys.getsizeof(text) // len(text)
    widest = max(text)
    return 1 if widest < "\u0100" else 2 if widest < "\U00010000" else _MOST_WIDTH


def is_too_long(text: bytes) -> bool:
    """Tell whether a text in UTF-8 takes more than ``MAX_ROW_LENGTH`` of memory, or would once it is decoded."""
    if len(text) * _MOST_WIDTH <= MAX_ROW_LENGTH or text.isascii():
        return len(text) > MAX_ROW_LENGTH
    width = next((width for wide, width in _WIDTHS if wide.search(text)), 1)
    return width * len(text.translate(None, _CONTINUING)) > MAX_ROW_LENGTH


def check_values(text: str, place: str) -> None:
    """Refuse a row that is small as text but not in memory.

    :raises JobError: if the JSON text has more than ``MAX_ROW_VALUES`` commas and opening brackets.
    """
    # Of a shorter text not even all characters are too many, and that is nearly every row.
    if len(text) > MAX_ROW_VALUES and sum(map(text.count, ",[{")) > MAX_ROW_VALUES:
        raise too_many_values(place)


def too_many_values(place: str, hint: str = "") -> JobError:
    """Return the error for a row over ``MAX_ROW_VALUES``."""
    return JobError(f"{place} has more than {MAX_ROW_VALUES:,} values, the most that are accepted. {hint}".rstrip())


def byte_lines(source: Path | BinaryIO, compression: Compression | None) -> Iterator[bytes]:
    """Yield the lines of a file, or of a stream, each with its own ending; only a line feed ends a line.

    :raises JobError: if it cannot be unpacked, or a line is longer than ``MAX_ROW_LENGTH``.
    """
    with _opened(source, compression) as stream:
        yield from _byte_lines(stream)


def _byte_lines(stream: BinaryIO) -> Iterator[bytes]:
    for number, line in enumerate(iter(partial(stream.readline, MAX_ROW_LENGTH + 1), b""), 1):
        if is_too_long(line):
            raise row_too_long(f"line {number}", "If the rows are elements of one JSON array, name the file .json.")
        yield line


def read_lines(source: Path | BinaryIO, compression: Compression | None) -> Iterator[str]:
    """Yield the text of ``byte_lines``.

    :raises JobError: if it cannot be unpacked, or a line is not UTF-8 or longer than ``MAX_ROW_LENGTH``.
    """
    for number, line in enumerate(byte_lines(source, compression), 1):
        yield _decoded(line, number, "utf-8", "utf-8")


def _decoded(line: bytes, number: int, encoding: str, asked: str | None) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise _not_text(number, error, asked) from error


class TextLines:
    """The lines of a file, or of a stream, as text, each with its own ending. They can be gone over once.

    After the first line `encoding` tells what the text is encoded in, and `size` always how many bytes of it, unpacked,
    the lines so far have taken. Encoded again, they are the same bytes.

    :param encoding: the text's; None for UTF-8 or, where a byte order mark says so, UTF-16.
    :param block_bytes: how much is read at once.
    """

    def __init__(
        self,
        source: Path | BinaryIO,
        compression: Compression | None,
        encoding: str | None = None,
        block_bytes: int = _BLOCK_BYTES,
    ) -> None:
        self._source = source
        self._compression = compression
        self._asked = encoding
        self._block_bytes = block_bytes
        self.encoding = encoding or "utf-8"
        self.size = 0

    def __iter__(self) -> Iterator[str]:
        """Yield the lines.

        :raises JobError: it cannot be unpacked, a line is not text in the encoding or longer than ``MAX_ROW_LENGTH``,
            or the byte order mark is another encoding's.
        """
        with _opened(self._source, self._compression, self._block_bytes) as stream:
            self.encoding = _encoding_of(stream.peek(_LONGEST_MARK)[:_LONGEST_MARK], self._asked)
            yield from self._wide(stream) if self.encoding in _BYTE_ORDERS.values() else self._narrow(stream)

    def _narrow(self, stream: BinaryIO) -> Iterator[str]:
        encoding = self.encoding
        for number, line in enumerate(_byte_lines(stream), 1):
            self.size += len(line)
            text = _decoded(line, number, encoding, self._asked)
            if encoding != "utf-8" and text.encode(encoding) != line:
                raise JobError(f"line {number} has a character that {encoding} can write in several ways; use UTF-8")
            yield text

    def _wide(self, stream: BinaryIO) -> Iterator[str]:
        text = io.TextIOWrapper(stream, self.encoding, newline="\n")
        number, most = 1, MAX_ROW_LENGTH // _MOST_WIDTH
        try:
            for number, line in enumerate(iter(partial(text.readline, most + 1), ""), 1):
                if len(line) > most:
                    raise row_too_long(f"line {number}", most=most * _MOST_WIDTH)
                self.size += len(line.encode(self.encoding))
                yield line
        except UnicodeDecodeError as error:
            raise JobError(f"the text behind line {number} is not {self.encoding} ({error.reason})") from error
        finally:
            text.detach()


def _encoding_of(start: bytes, asked: str | None) -> str:
    """Return the encoding of a text that starts so.

    :raises JobError: its byte order mark is not that of the encoding that was asked for.
    """
    marked = _BYTE_ORDERS.get(start[:2]) or ("utf-8" if start == codecs.BOM_UTF8 else None)
    if asked == "utf-16" and marked not in _BYTE_ORDERS.values():
        raise JobError("the text has no byte order mark; let encoding be utf-16-le or utf-16-be")
    if marked is not None and asked not in (None, marked) and not (asked == "utf-16" and marked != "utf-8"):
        raise JobError(f"the text begins with the byte order mark of {marked}, so it is not in encoding {asked!r}")
    return marked or asked or "utf-8"


def read_blocks(
    source: Path | BinaryIO, compression: Compression | None, block_bytes: int = _BLOCK_BYTES
) -> Iterator[str]:
    """Yield the text of a file, or of a stream, in blocks of about 1 MiB, cut anywhere between two characters.

    :raises JobError: if it cannot be unpacked, or the text is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with _opened(source, compression, block_bytes) as stream:
        block = b"start"
        while block:
            block = stream.read(block_bytes)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _not_text(line + error.object.count(b"\n", 0, error.start), error) from error
            line += block.count(b"\n")
            yield text


def _not_text(line: int, error: UnicodeDecodeError, asked: str | None = "utf-8") -> JobError:
    encoding = (asked or "utf-8").upper()
    text = f"line {line} is not {encoding} text ({error.reason}, byte 0x{error.object[error.start]:02x})"
    if line == 1 and (hint := hint_of_magic(error.object)):
        return JobError(f"{text}. {hint}")
    return JobError(f"{text}. Write the file as UTF-8{', or name its encoding' if asked != 'utf-8' else ''}.")


@contextmanager
def _opened(
    source: Path | BinaryIO, compression: Compression | None, block_bytes: int = _BLOCK_BYTES
) -> Iterator[io.BufferedReader]:
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        # A buffer in C: lines straight from what unpacks cost a Python call each.
        yield io.BufferedReader(unpacked(file, compression), block_bytes)


class MeasuredText:
    """A text that counts its bytes, unpacked, while it is read once: `size` so far.

    :param stream: the text as it is stored, from its beginning; it is not closed.
    """

    def __init__(self, stream: BinaryIO, file_type: FileType) -> None:
        self._stream = stream
        self.file_type = file_type
        self._size = 0
        self._lines: TextLines | None = None

    @property
    def size(self) -> int:
        return self._size if self._lines is None else self._lines.size

    def read(self, texts_of: Callable[[BinaryIO, Compression | None], Iterator[AnyStr]]) -> Iterator[AnyStr]:
        """Yield what :func:`byte_lines`, :func:`read_lines` or :func:`read_blocks` yields of it."""
        for text in texts_of(self._stream, self.file_type.compression):
            self._size += size_in_bytes(text)
            yield text

    def lines(self, block_bytes: int = _BLOCK_BYTES) -> TextLines:
        """Return the lines of a text that may be in another encoding than UTF-8."""
        self._lines = TextLines(self._stream, self.file_type.compression, self.file_type.dialect.encoding, block_bytes)
        return self._lines


def size_in_bytes(text: str | bytes) -> int:
    """Return how many bytes a text takes in UTF-8."""
    return len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
