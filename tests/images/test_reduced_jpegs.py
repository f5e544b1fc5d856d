"""Reduced decoding: how small a JPEG comes out, that it shows the same picture, and what stays exact."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from clip_operator.errors import Reason
from tests.images.conftest import Refusal, decode
from tests.images.pictures import drawn, encoded, jpeg_with_a_scan_for_each_colour

LARGE = drawn(size=(640, 480))
JPEGS = {
    "baseline": encoded(LARGE, "JPEG"),
    "all-colours-whole": encoded(LARGE, "JPEG", subsampling=0),
    "progressive": encoded(LARGE, "JPEG", progressive=True),
    "grey": encoded(LARGE.convert("L"), "JPEG"),
    "cmyk": encoded(LARGE.convert("CMYK"), "JPEG"),
    "cmyk-progressive": encoded(LARGE.convert("CMYK"), "JPEG", progressive=True),
    "uncoded-rgb": encoded(LARGE, "JPEG", keep_rgb=True),
    "a-scan-for-each-colour": jpeg_with_a_scan_for_each_colour(LARGE),
    "mpo": encoded(LARGE, "MPO", save_all=True, append_images=[LARGE.rotate(180)]),
}
LOSSLESS = ["PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "JPEG2000", "AVIF"]


def plain_pillow(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def difference(image: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two images at 64 x 48 pixels, in levels of 0 to 255."""
    small, other_small = (np.asarray(each.resize((64, 48)), dtype=float) for each in (image, other))
    return float(np.abs(small - other_small).mean())


@pytest.mark.parametrize("height", [2, 7, 16, 31, 64, 65, 100, 255])
@pytest.mark.parametrize("width", [2, 8, 15, 33, 63, 64, 127, 256, 300])
def test_the_short_side_keeps_twice_the_length_and_the_size_is_the_smallest_that_does(width: int, height: int) -> None:
    data = encoded(Image.new("RGB", (width, height), (90, 80, 70)), "JPEG")
    short = min(width, height)
    for at_least in (1, 2, 3, 7, 8, 15, 16, 20, 32, 50, 200):
        image = decode(data, at_least=at_least)
        scale = max((s for s in (2, 4, 8) if short >= s * 2 * at_least), default=1)
        assert image.size == (-(-width // scale), -(-height // scale))
        assert min(image.size) >= min(short, 2 * at_least)


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize(("at_least", "size"), [(120, (320, 240)), (60, (160, 120)), (10, (80, 60))])
def test_every_kind_of_jpeg_shows_the_same_picture(name: str, at_least: int, size: tuple[int, int]) -> None:
    image = decode(JPEGS[name], at_least=at_least)
    assert (image.size, image.mode) == (size, "RGB")
    assert difference(image, plain_pillow(JPEGS[name])) < 2
    assert difference(image, plain_pillow(JPEGS[name]).rotate(180)) > 20


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("at_least", [None, 121, 240, 10_000])
def test_pixels_are_exact_if_none_are_spared(name: str, at_least: int | None) -> None:
    image = decode(JPEGS[name], at_least=at_least)
    assert (image.size, image.mode) == ((640, 480), "RGB")
    assert image.tobytes() == plain_pillow(JPEGS[name]).tobytes()


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_other_formats_are_decoded_in_full(file_format: str) -> None:
    data = encoded(LARGE, file_format)
    assert decode(data, at_least=1).tobytes() == plain_pillow(data).tobytes()


def test_the_limits_are_for_the_size_of_the_file(refused: Refusal) -> None:
    assert decode(JPEGS["baseline"], 640 * 480, at_least=10).size == (80, 60)
    error = refused(Reason.IMAGE_TOO_LARGE, decode, JPEGS["baseline"], 640 * 480 - 1, 10)
    assert "640 x 480" in error.detail
    refused(Reason.IMAGE_TOO_LARGE, decode, encoded(Image.new("L", (2010, 10)), "JPEG"), 10**6, 1)


@pytest.mark.parametrize("name", sorted(JPEGS.keys() - {"mpo"}))
def test_a_file_cut_in_half_is_unreadable(name: str, refused: Refusal) -> None:
    data = JPEGS[name]
    refused(Reason.IMAGE_UNREADABLE, decode, data[: len(data) // 2], 10**6, 10)
