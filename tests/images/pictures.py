"""Image files of every kind, made by Pillow, for the tests of this folder."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw


def drawn(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    """Return a picture with edges and colours in it, converted to ``mode``."""
    image = Image.new("RGB", size, (200, 30, 60))
    ImageDraw.Draw(image).ellipse((2, 2, size[0] // 2, size[1] - 2), fill=(20, 180, 90))
    return image.convert("L").convert(mode) if mode in ("I;16", "F", "I") else image.convert(mode)


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """Return the image as a file in the given format."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png(size: tuple[int, int] = (24, 16), color: tuple[int, int, int] = (200, 30, 60)) -> bytes:
    """Return a PNG file of one colour."""
    return encoded(Image.new("RGB", size, color))


def png_that_claims(width: int, height: int) -> bytes:
    """Return a small PNG file whose header promises ``width`` x ``height`` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_with_a_scan_for_each_colour(image: Image.Image) -> bytes:
    """Return a baseline JPEG file whose three components follow one another, which Pillow cannot write."""
    scans = b""
    for number, plane in enumerate(image.convert("YCbCr").split(), start=1):
        header, coded = encoded(plane, "JPEG").split(b"\xff\xda")
        scans += b"\xff\xda" + coded[:3] + bytes([number]) + coded[4:-2]
    frame = header.index(b"\xff\xc0")
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    start = header[:frame] + b"\xff\xc0\0\x11" + header[frame + 4 : frame + 9] + b"\x03" + components
    return start + header[frame + 13 :] + scans + b"\xff\xd9"


def jpeg_with_comments(jpeg: bytes, *comments: bytes, before: bytes = b"") -> bytes:
    """Return a JPEG file with ``before`` and then comments at its start."""
    segments = b"".join(b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment for comment in comments)
    return jpeg[:2] + before + segments + jpeg[2:]
