"""Image files of every kind that data sets hold, drawn small, and header-only files that claim to be huge."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from PIL import Image

from tests.images.pictures import drawn, encoded, png_that_claims

_FRAMES = [Image.new("RGB", (24, 16), color) for color in ((250, 0, 0), (0, 250, 0))]


def whole_files() -> dict[str, bytes]:
    """Return files that can be decoded, by a name that ends as such files do."""
    rotated = Image.Exif()
    rotated[0x0112] = 6
    sixteen_bit = Image.effect_noise((24, 16), 60).convert("I").point(lambda value: value * 257).convert("I;16")
    animated: dict[str, Any] = {"save_all": True, "append_images": [_FRAMES[1]]}
    return {
        "rgb.jpg": encoded(drawn(), "JPEG"),
        "progressive.jpg": encoded(drawn(), "JPEG", progressive=True),
        "cmyk.jpg": encoded(drawn("CMYK"), "JPEG"),
        "grey.jpg": encoded(drawn("L"), "JPEG"),
        "rotated.jpg": encoded(drawn(), "JPEG", exif=rotated),
        "rgb.png": encoded(drawn()),
        "interlaced.png": _interlaced_png(),
        "rgba.png": encoded(drawn("RGBA")),
        "grey.png": encoded(drawn("L")),
        "grey-alpha.png": encoded(drawn("LA")),
        "one-bit.png": encoded(drawn("1")),
        "sixteen-bit.png": encoded(sixteen_bit),
        "palette.png": encoded(drawn("P")),
        "transparent-palette.png": encoded(drawn("P"), transparency=bytes(range(256))),
        "animated.png": encoded(_FRAMES[0], **animated),
        "palette.gif": encoded(drawn("P"), "GIF"),
        "animated.gif": encoded(_FRAMES[0], "GIF", **animated),
        "rgba.webp": encoded(drawn("RGBA"), "WEBP"),
        "lossless.webp": encoded(drawn(), "WEBP", lossless=True),
        "animated.webp": encoded(_FRAMES[0], "WEBP", **animated),
        "rgb.tif": encoded(drawn(), "TIFF"),
        "lzw.tif": encoded(drawn(), "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(drawn(), "TIFF", compression="tiff_deflate"),
        "jpeg.tif": encoded(drawn(), "TIFF", compression="jpeg"),
        "fax.tif": encoded(drawn("1"), "TIFF", compression="group4"),
        "cmyk.tif": encoded(drawn("CMYK"), "TIFF"),
        "float.tif": encoded(drawn("F"), "TIFF"),
        "sixteen-bit.tif": encoded(sixteen_bit, "TIFF"),
        "rgb.bmp": encoded(drawn(), "BMP"),
        "rgb.jp2": encoded(drawn(), "JPEG2000"),
        "rgb.avif": encoded(drawn(), "AVIF"),
        "rgb.ppm": encoded(drawn(), "PPM"),
        "rle.tga": encoded(drawn(), "TGA", compression="tga_rle"),
        "1x1.png": encoded(drawn(size=(24, 16)).resize((1, 1))),
        "3x1.png": encoded(drawn(size=(24, 16)).resize((3, 1))),
    }


def bombs() -> dict[str, bytes]:
    """Return small files whose headers claim 60,000 x 60,000 pixels (WebP its most), and one of 20,000 x 20,000."""
    side = 60_000
    gif = encoded(drawn("P"), "GIF")
    bmp = encoded(drawn(), "BMP")
    jpeg = encoded(drawn(), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    jp2 = encoded(drawn(), "JPEG2000")
    tiff = encoded(drawn(), "TIFF")
    webp = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + 2 * (16_000 - 1).to_bytes(3, "little")
    lossy = encoded(drawn(), "WEBP")[12:]
    return {
        "bomb.png": png_that_claims(side, side),
        "bomb.gif": gif[:6] + struct.pack("<HH", side, side) + gif[10:],
        "bomb.bmp": bmp[:18] + struct.pack("<ii", side, side) + bmp[26:],
        "bomb.jpg": jpeg[:frame] + struct.pack(">HH", side, side) + jpeg[frame + 4 :],
        "bomb.jp2": jp2.replace(struct.pack(">II", 16, 24), struct.pack(">II", side, side)).replace(
            struct.pack(">II", 24, 16), struct.pack(">II", side, side)
        ),
        "bomb.tif": _with_tiff_size(tiff, side),
        "bomb.webp": b"RIFF" + struct.pack("<I", len(webp) + len(lossy)) + webp + lossy,
        "bomb.ppm": b"P6\n60000 60000\n255\n" + bytes(1000),
        "real-bomb.png": png_of_zeros(20_000, 20_000),
    }


def png_of_zeros(width: int, height: int) -> bytes:
    """Return a grey PNG file of one bit a pixel that is whole, and a thousandth of the size of its pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join([packer.compress(row * 100) for _ in range(height // 100)]) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
            png_chunk(b"IDAT", body),
            png_chunk(b"IEND", b""),
        ]
    )


def _interlaced_png() -> bytes:
    """Return an 8 x 8 grey PNG file in the seven passes of Adam7, which Pillow cannot write."""
    passes = ((1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8))
    rows = b"".join((b"\0" + bytes(range(10, 10 + width))) * height for height, width in passes)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    )


def png_chunk(name: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _with_tiff_size(tiff: bytes, side: int) -> bytes:
    """Return a little-endian TIFF file with another width and height in its directory."""
    for tag, length in ((256, 24), (257, 16)):
        for kind, form in ((3, "<HHIHH"), (4, "<HHII")):
            old = struct.pack(form, tag, kind, 1, length, *([0] if kind == 3 else []))
            tiff = tiff.replace(old, struct.pack("<HHII", tag, 4, 1, side))
    return tiff
