"""BMP files that cost far more than they look. Pillow unpacks their run-length code in Python."""

from __future__ import annotations

import struct


def bmp_of_short_rows(side: int) -> bytes:
    """Return a BMP of whose rows 4 bytes say that they are empty, which Pillow fills up pixel by pixel."""
    return _bmp(side, 1, 8, b"\1\1\0\0" * side)


def bmp_of_nibbles(side: int) -> bytes:
    """Return a BMP of 4 bits a pixel in runs, which Pillow writes out pixel by pixel."""
    full, rest = divmod(side, 255)
    return _bmp(side, 2, 4, (b"\xff\x12" * full + bytes([rest, 0x12]) * (rest > 0) + b"\0\0") * side)


def _bmp(side: int, compression: int, bits: int, data: bytes) -> bytes:
    palette = bytes([1, 2, 3, 0, 4, 5, 6, 0])
    start = 14 + 40 + len(palette)
    file = struct.pack("<2sLHHL", b"BM", start + len(data), 0, 0, start)
    picture = struct.pack("<LllHHLLllLL", 40, side, side, 1, bits, compression, len(data), 0, 0, 2, 0)
    return file + picture + palette + data
