"""Unpacks and packs the whole of a text file: gzip, bzip2, xz and zstd, streamed, with bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

from clip_operator.errors import JobError
from clip_operator.machine.stopping import check_not_stopped
from clip_operator.tables.file_types import Compression

_MOST_MEMORY_BYTES = 136 << 20  # xz -9 takes 65 MiB; zstd's own limit, which holds for it, is a window of 128
_INPUT_BYTES = 64 << 10
_GZIP_LEVEL = 6

_NAMES = {
    Compression.GZIP: "gzip",
    Compression.BZIP2: "bzip2",
    Compression.XZ: "xz",
    Compression.ZSTD: "zstd",
}
_MAGIC = {
    b"\x1f\x8b": Compression.GZIP,
    b"BZh": Compression.BZIP2,
    b"\xfd7zXZ\0": Compression.XZ,
    b"\x28\xb5\x2f\xfd": Compression.ZSTD,
}


class NotUnpacked(JobError):
    """Compressed data are damaged, cut off, or not what their name says."""


def hint_of_magic(start: bytes) -> str | None:
    """Return what is to be done with data that begin so and were taken for text; None if they are not compressed."""
    found = next((compression for magic, compression in _MAGIC.items() if start.startswith(magic)), None)
    if found is None:
        return None
    return f"The data is {_NAMES[found]}-compressed: let the file name end in .{found}, or unpack it once."


def unpacked(source: BinaryIO, compression: Compression | None) -> io.RawIOBase:
    """Return the unpacked bytes of a stream, as many members or frames as it has; reads end where the work is to stop.

    It leaves the stream open.

    :raises NotUnpacked: from its reads, where the data cannot be unpacked.
    """
    watched = _Watched(source)
    if compression is None:
        return watched
    # Watched on both sides: a little of compressed data can hold a lot of text, and a lot of it none at all.
    return _Watched(_Explained(_READERS[compression](watched), compression))


def packed(target: BinaryIO, compression: Compression | None) -> BinaryIO:
    """Return a file whose bytes go to ``target``, compressed without time or name: the same bytes in, the same out.

    To be closed, which leaves the target open.
    """
    return cast("BinaryIO", _LeftOpen(target) if compression is None else _WRITERS[compression](target))


class _Watched(io.RawIOBase):
    """A stream that looks, before each read, whether the work was told to stop."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        check_not_stopped()
        return int(self._stream.readinto(buffer))


class _Explained(io.RawIOBase):
    """A stream whose errors are put into words."""

    def __init__(self, stream: Any, compression: Compression) -> None:
        super().__init__()
        self._stream = stream
        self._compression = compression

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            return int(self._stream.readinto(buffer))
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # what the disk says, and not what unpacks
            raise self._in_words(error) from error

    def _in_words(self, error: Exception) -> NotUnpacked:
        name, text = _NAMES[self._compression], str(error)
        if isinstance(error, EOFError) or text.startswith("Truncated"):
            return NotUnpacked(f"The {name} data ends too early: the file was cut off. Write or upload it again.")
        if "memory" in text.lower():
            return NotUnpacked(
                f"The {name} data needs too much memory to be unpacked ({text}). Compress it with a smaller window."
            )
        if isinstance(error, zlib.error):
            return NotUnpacked(f"The {name} data is damaged ({text}). Write or upload the file again.")
        return NotUnpacked(
            f"The file name ends in .{self._compression} but the data is not whole {name} data ({text})."
        )


class _Streams(io.RawIOBase):
    """Unpacks one compressed stream behind the other, with nothing but zeros between them.

    The standard library's own files pass over whatever stands behind a stream and is none.
    """

    def __init__(self, source: io.RawIOBase, new_stream: Callable[[], Any]) -> None:
        super().__init__()
        self._source = source
        self._new_stream = new_stream
        self._stream: Any = None
        self._is_first = True
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while self._has_input():
            if self._stream is None:
                self._stream = self._new_stream()
            data = b""
            if self._stream.needs_input:
                data, self._rest = self._rest, b""
            block = self._stream.decompress(data, len(buffer))
            if self._stream.eof:
                self._rest, self._stream, self._is_first = self._stream.unused_data.lstrip(b"\0"), None, False
            if block:
                buffer[: len(block)] = block
                return len(block)
        return 0

    def _has_input(self) -> bool:
        """Tell whether there is more to unpack, having read it.

        :raises EOFError: a stream is not complete.
        """
        while not self._rest and (self._stream is None or self._stream.needs_input):
            self._rest = self._source.read(_INPUT_BYTES) or b""
            if not self._rest and self._stream is not None:
                raise EOFError
            if not self._rest:
                return False
            if self._stream is None and not self._is_first:
                self._rest = self._rest.lstrip(b"\0")
        return True


def _read_zstd(source: io.RawIOBase) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd")


def _write_zstd(target: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedOutputStream(pa.PythonFile(_LeftOpen(target), "w"), "zstd")


class _LeftOpen(io.RawIOBase):
    """A file to write to which stays open when this is closed."""

    def __init__(self, target: BinaryIO) -> None:
        super().__init__()
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return self._target.write(data)


_READERS: Mapping[Compression, Callable[[io.RawIOBase], Any]] = {
    Compression.GZIP: lambda source: gzip.GzipFile(fileobj=cast("BinaryIO", source)),
    Compression.BZIP2: lambda source: _Streams(source, bz2.BZ2Decompressor),
    Compression.XZ: lambda source: _Streams(
        source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY_BYTES)
    ),
    Compression.ZSTD: _read_zstd,
}

_WRITERS: Mapping[Compression, Callable[[BinaryIO], Any]] = {
    Compression.GZIP: lambda target: gzip.GzipFile("", "wb", _GZIP_LEVEL, fileobj=target, mtime=0),
    Compression.BZIP2: lambda target: bz2.BZ2File(target, "wb"),
    Compression.XZ: lambda target: lzma.LZMAFile(target, "wb"),  # noqa: SIM115, closed by whoever writes
    Compression.ZSTD: _write_zstd,
}
