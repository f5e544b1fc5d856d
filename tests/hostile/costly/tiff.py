"""TIFF files that cost far more than they look."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

_SHORT, _LONG = 3, 4
_RAW, _DEFLATE = 1, 8
_HEADER_BYTES = 8


def tiff_of_one_large_tile(side: int, tile: int) -> bytes:
    """Return an RGB TIFF of ``side`` x ``side`` pixels in a tile of ``tile`` x ``tile``, of which it holds a start."""
    return _tiled(side, side, tile, tile, zlib.compress(bytes(1000)), samples=3)


def tiff_of_tall_tiles(tiles: int, tile_bytes: int) -> bytes:
    """Return a grey TIFF of so many tiles side by side, 16 pixels of whose height it has.

    All tiles are the same bytes, which are unpacked for each of them to ``tile_bytes``.
    """
    return _tiled(16 * tiles, 16, 16, tile_bytes // 16, _packed_zeros(tile_bytes), tiles)


def tiff_of_many_strips(count: int) -> bytes:
    """Return a grey TIFF of 16 x 16 pixels that lists so many strips, each of which is decoded."""
    return _tiff(16, 16, _RAW, {278: (_LONG, [1]), 273: (_SHORT, [_HEADER_BYTES] * count)}, bytes(256))


def _tiled(
    width: int, height: int, tile_width: int, tile_height: int, data: bytes, tiles: int = 1, samples: int = 1
) -> bytes:
    tags = {
        322: (_LONG, [tile_width]),
        323: (_LONG, [tile_height]),
        324: (_LONG, [_HEADER_BYTES] * tiles),
        325: (_LONG, [len(data)] * tiles),
    }
    return _tiff(width, height, _DEFLATE, tags, data, samples)


def _tiff(
    width: int, height: int, compression: int, tags: Mapping[int, tuple[int, list[int]]], data: bytes, samples: int = 1
) -> bytes:
    """Return a file with ``data`` behind its header, and then its directory."""
    tags = {
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [8] * samples),
        259: (_SHORT, [compression]),
        262: (_SHORT, [1 if samples == 1 else 2]),
        277: (_SHORT, [samples]),
        **tags,
    }
    data += b"\0" * (len(data) % 2)
    directory = _HEADER_BYTES + len(data)
    entries, values = b"", b""
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == _SHORT else 'L'}", *numbers)
        if len(packed) > 4:
            place = directory + 2 + 12 * len(tags) + 4 + len(values)
            values += packed + b"\0" * (len(packed) % 2)
            packed = struct.pack("<L", place)
        entries += struct.pack("<HHL", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    header = b"II*\0" + struct.pack("<L", directory)
    return header + data + struct.pack("<H", len(tags)) + entries + bytes(4) + values


def _packed_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    pieces = [packer.compress(bytes(min(1 << 20, size - start))) for start in range(0, size, 1 << 20)]
    return b"".join(pieces) + packer.flush()
