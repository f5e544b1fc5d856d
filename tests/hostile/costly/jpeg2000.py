"""JPEG 2000 files that cost far more than they look (ISO/IEC 15444-1, annex A)."""

from __future__ import annotations

import struct


def jpeg_2000_of_tiny_precincts(side: int) -> bytes:
    """Return some 90 bytes that divide an image into precincts of one pixel, for each of which there is a table."""
    return _codestream(side, side, layers=1, precinct=0)


def jpeg_2000_of_many_packets(side: int, tile: int) -> bytes:
    """Return a file whose tiles are one byte each and have 65,535 layers, whose packets are gone through one by one."""
    return _codestream(side, tile, layers=65_535, precinct=15)


def _codestream(side: int, tile: int, layers: int, precinct: int) -> bytes:
    components = 3
    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, tile, tile, 0, 0, components) + b"\7\1\1" * components
    # Precincts are given; no wavelet levels, code blocks of 64 x 64 pixels, the reversible wavelet.
    style = struct.pack(">BBHBBBBBBB", 1, 0, layers, 0, 0, 4, 4, 0, 1, precinct << 4 | precinct)
    stream = b"\xff\x4f" + _segment(0x51, size) + _segment(0x52, style) + _segment(0x5C, b"\x40\x40")
    for number in range((-(-side // tile)) ** 2):
        # 15 bytes: this header, the marker of the data, and the data.
        stream += struct.pack(">HHHIBBHB", 0xFF90, 10, number, 15, 0, 1, 0xFF93, 0)
    return stream + b"\xff\xd9"


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
