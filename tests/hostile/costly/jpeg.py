"""JPEG files that cost far more than they look (ITU-T T.81; markers as in its table B.1)."""

from __future__ import annotations

import struct

from tests.images.pictures import drawn, encoded

_LONGEST_RUN = 32_767  # blocks without a coefficient that one code can stand for
_SHORTEST_LONG_RUN = 16_384


def jpeg_of_many_scans(side: int, scans: int) -> bytes:
    """Return a progressive grey JPEG whose scans add nothing to it, each of which is decoded for every block.

    Progressive files that encoders write have some 10 scans.
    """
    blocks = (-(-side // 8)) ** 2
    tables = _segment(0xDB, bytes([0] + [1] * 64))
    frame = _segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    # Of constant colour: the one code, 0, says that a block is as the one before.
    direct = _segment(0xC4, bytes([0x00, 1] + [0] * 15 + [0]))
    # Without coefficients: the code 0 for a run of 16,384 blocks and as many more as 14 bits say, 10 for one block.
    alternating = _segment(0xC4, bytes([0x10, 1, 1] + [0] * 14 + [0xE0, 0x00]))
    first = _segment(0xDA, b"\1\1\0\0\0\0") + _packed("0" * blocks)
    codes = "10" * blocks
    if blocks >= _SHORTEST_LONG_RUN:
        count = -(-blocks // _LONGEST_RUN)
        runs = [blocks // count + (number < blocks % count) for number in range(count)]
        codes = "".join(f"0{run - _SHORTEST_LONG_RUN:014b}" for run in runs)
    scan = _segment(0xDA, b"\1\1\0\1\x3f\0") + _packed(codes)
    return b"\xff\xd8" + tables + frame + direct + alternating + first + scan * scans + b"\xff\xd9"


def jpeg_of_many_exif_segments(size: int) -> bytes:
    """Return a JPEG with ``size`` bytes of segments that Pillow joins one by one, copying all of them each time."""
    return _with_segments(_segment(0xE1, b"Exif\0\0x"), size)


def jpeg_of_many_segments(size: int) -> bytes:
    """Return a JPEG with ``size`` bytes of empty application segments."""
    return _with_segments(_segment(0xE5, b""), size)


def jpeg_of_padding(size: int) -> bytes:
    """Return a JPEG with ``size`` bytes of 0xFF, of which any number may stand before a marker."""
    return _with_segments(b"\xff", size)


def _with_segments(segment: bytes, size: int) -> bytes:
    jpeg = encoded(drawn(), "JPEG")
    return jpeg[:2] + segment * (size // len(segment)) + jpeg[2:]


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _packed(bits: str) -> bytes:
    """Return bits as entropy-coded data: filled up with ones, and a 0 behind each 0xFF."""
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
