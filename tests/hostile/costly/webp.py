"""WebP files that cost far more than they look."""

from __future__ import annotations

import struct

from tests.images.pictures import drawn, encoded


def webp_of_large_canvas(side: int) -> bytes:
    """Return a WebP of a frame of 24 x 16 pixels on a canvas of ``side`` x ``side``, of which two copies are made."""
    frame = encoded(drawn(), "WEBP")[12:]
    placed = struct.pack("<3s3s3s3s3sB", bytes(3), bytes(3), _less_one(24), _less_one(16), _less_one(2), 0) + frame
    chunks = _chunk(b"VP8X", b"\2\0\0\0" + 2 * _less_one(side)) + _chunk(b"ANIM", bytes(6)) + _chunk(b"ANMF", placed)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _less_one(number: int) -> bytes:
    return (number - 1).to_bytes(3, "little")
