"""AVIF files that cost far more than they look (ISO/IEC 14496-12 and 23008-12)."""

from __future__ import annotations

import struct

from PIL import Image

from tests.images.pictures import encoded


def avif_of_many_frames(frame_side: int, frames: int) -> bytes:
    """Return an AVIF that says it has 16 x 16 pixels, and holds so many larger frames, all of which are decoded."""
    file = encoded(Image.new("RGB", (frame_side, frame_side), (9, 200, 3)), "AVIF", speed=10)
    size = file.index(b"ispe") + 8
    file = file[:size] + struct.pack(">II", 16, 16) + file[size + 8 :]
    # Pillow writes one item, at the end of the file: where it starts and its length are the end of the box iloc.
    start, length = struct.unpack_from(">II", file, place := file.index(b"iinf") - 12)
    frame = file[start : start + length]
    header = file[:place] + struct.pack(">II", start, frames * length) + file[place + 8 : start - 8]
    return header + struct.pack(">I4s", 8 + frames * length, b"mdat") + frame * frames
