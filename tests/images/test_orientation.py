"""Images whose EXIF says how they are to be turned: upright exactly as Pillow turns them, or left as they are."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from clip_operator.images.loader import ImageLoader
from clip_operator.images.orientation import turning
from tests.images.pictures import drawn, encoded, png

PICTURE = drawn(size=(25, 16))
FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"]
_XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def exif_of(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def photograph(orientation: int, file_format: str, mode: str = "RGB", **options: Any) -> bytes:
    return encoded(drawn(mode, (25, 16)), file_format, exif=exif_of(orientation), **options)


def upright(loader: ImageLoader, data: bytes, at_least: int | None = None) -> Image.Image:
    with loader.decode(data, at_least, upright=True) as image:
        return image


def transposed(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("orientation", range(10))
def test_pixels_are_those_of_pillows_exif_transpose(loader: ImageLoader, orientation: int, file_format: str) -> None:
    data = photograph(orientation, file_format)
    image, expected = upright(loader, data), transposed(data)
    assert (image.size, image.tobytes()) == (expected.size, expected.tobytes())
    assert turning(image) is None


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("RGBA", "WEBP"), ("L", "TIFF")],
)
def test_so_are_those_of_every_mode(loader: ImageLoader, mode: str, file_format: str) -> None:
    data = photograph(6, file_format, mode)
    assert upright(loader, data).tobytes() == transposed(data).tobytes()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_what_xmp_says_counts_where_exif_says_nothing(loader: ImageLoader, file_format: str) -> None:
    xmp: dict[str, Any] = {"xmp": _XMP.format(8).encode()}
    if file_format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", _XMP.format(8))
        xmp = {"pnginfo": info}
    data = encoded(PICTURE, file_format, **xmp)
    assert upright(loader, data).size == (16, 25)
    assert upright(loader, data).tobytes() == transposed(data).tobytes()


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_stored_is_left_and_told(loader: ImageLoader, file_format: str) -> None:
    data = photograph(6, file_format)
    plain = Image.open(io.BytesIO(data)).convert("RGB")
    with loader.decode(data) as image:
        assert image.tobytes() == plain.tobytes()
        # Pillow itself turns what is in a TIFF.
        assert (turning(image) is None) == (file_format == "TIFF")
    with loader.decode(encoded(PICTURE, file_format)) as image:
        assert turning(image) is None


def test_a_jpeg_that_is_decoded_smaller_is_turned_too(loader: ImageLoader) -> None:
    data = encoded(drawn(size=(640, 480)), "JPEG", exif=exif_of(6))
    assert upright(loader, data, at_least=60).size == (120, 160)


def test_a_transparent_colour_stays_one(loader: ImageLoader) -> None:
    data = photograph(6, "PNG", transparency=(200, 30, 60))
    assert upright(loader, data).info["transparency"] == (200, 30, 60)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(data=st.data(), file_format=st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_damaged_exif_costs_no_image(data: st.DataObject, file_format: str) -> None:
    exif = bytearray(exif_of(6).tobytes())
    for place in data.draw(st.lists(st.integers(6, len(exif) - 1), max_size=8)):
        exif[place] = data.draw(st.integers(0, 255))
    exif = exif[: data.draw(st.integers(0, len(exif)))]
    image = Image.new("RGB", (3, 2))
    image.info["exif"] = bytes(exif)
    assert turning(image) in (None, *Image.Transpose)


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
def test_exif_that_would_be_large_when_read_is_not_kept(loader: ImageLoader) -> None:
    """One tag after the other that names the same bytes: 2,000 times 28 KB."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 28_000, 8) for tag in range(1, 2001))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2000) + tags + bytes(40_000)
    data, chunk = png(), b"eXIf" + exif[6:]
    data = data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    tracemalloc.start()
    with loader.decode(data, upright=True) as image:
        assert image.size == (24, 16)
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    tracemalloc.stop()
