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
