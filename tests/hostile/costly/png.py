"""PNG files that cost far more than they look."""

from __future__ import annotations

import struct
import zlib

from tests.hostile.image_files import png_chunk
from tests.images.pictures import drawn, encoded

# The passes: every how many pixels across and down, and from which on.
_ADAM7 = ((8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1))

_AFTER_HEADER = 33  # the signature and the chunk IHDR


def png_of_colour_profiles(count: int) -> bytes:
    """Return a PNG with so many colour profiles of 1 kB, each of which is unpacked to 1 MiB and then forgotten."""
    return _with_chunks(png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 20), 9)) * count)


def png_of_many_chunks(size: int) -> bytes:
    """Return a PNG with ``size`` bytes of empty chunks of a private kind."""
    empty = png_chunk(b"prVt", b"")
    return _with_chunks(empty * (size // len(empty)))


def png_of_empty_data_chunks(size: int) -> bytes:
    """Return a PNG with ``size`` bytes of chunks of pixels that hold none."""
    empty = png_chunk(b"IDAT", b"")
    return _with_chunks(empty * (size // len(empty)))


def interlaced_png_of_zeros(side: int) -> bytes:
    """Return a PNG of 8 bytes a pixel in the seven passes of Adam7, packed to a thousandth."""
    packer = zlib.compressobj(9)
    packed = b""
    for across, down, x, y in _ADAM7:
        row = bytes(1 + 8 * (-(-(side - x) // across)))
        for _ in range(-(-(side - y) // down)):
            packed += packer.compress(row)
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 1)
    data = png_chunk(b"IDAT", packed + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")


def _with_chunks(chunks: bytes) -> bytes:
    png = encoded(drawn())
    return png[:_AFTER_HEADER] + chunks + png[_AFTER_HEADER:]
