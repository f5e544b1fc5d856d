"""Decoding: every mode and format a data set has, and every way in which bytes fail to be an image."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy
from tests.images.conftest import Refusal, decode
from tests.images.pictures import drawn, encoded, png, png_that_claims

LIMIT = ImagePolicy(root=".").max_pixels


def plain_pillow(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


FILES = {
    "png-rgb": encoded(drawn("RGB")),
    "png-rgba": encoded(drawn("RGBA")),
    "png-l": encoded(drawn("L")),
    "png-la": encoded(drawn("LA")),
    "png-p": encoded(drawn("P")),
    "png-p-transparent": encoded(drawn("P"), transparency=bytes(range(256))),
    "png-1": encoded(drawn("1")),
    "png-i16": encoded(drawn("I;16")),
    "jpeg": encoded(drawn(), "JPEG"),
    "jpeg-progressive": encoded(drawn(), "JPEG", progressive=True),
    "jpeg-cmyk": encoded(drawn("CMYK"), "JPEG"),
    "jpeg-grey": encoded(drawn("L"), "JPEG"),
    "gif-animated": encoded(drawn("P"), "GIF", save_all=True, append_images=[Image.new("P", (24, 16), 3)]),
    "webp": encoded(drawn("RGBA"), "WEBP"),
    "webp-animated": encoded(drawn(), "WEBP", save_all=True, append_images=[Image.new("RGB", (24, 16))]),
    "bmp": encoded(drawn(), "BMP"),
    "tiff": encoded(drawn(), "TIFF", compression="tiff_lzw"),
    "tiff-cmyk": encoded(drawn("CMYK"), "TIFF"),
    "tiff-float": encoded(drawn("F"), "TIFF"),
    "ppm": encoded(drawn(), "PPM"),
    "tga": encoded(drawn(), "TGA", compression="tga_rle"),
    "jpeg2000": encoded(drawn(), "JPEG2000"),
    "1x1": png((1, 1)),
    "3x1": png((3, 1)),
    "1x3": png((1, 3)),
    "200x1": png((200, 1)),
    "avif": encoded(drawn(), "AVIF"),
    "mpo": encoded(drawn(), "MPO", save_all=True, append_images=[Image.new("RGB", (24, 16))]),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_plain_pillow(name: str) -> None:
    image = decode(FILES[name], LIMIT)
    assert image.mode == "RGB"
    expected = plain_pillow(FILES[name])
    assert image.size == expected.size
    assert image.tobytes() == expected.tobytes()
    assert image.resize((5, 5)).tobytes() == expected.resize((5, 5)).tobytes()


def test_an_image_in_rgb_is_not_copied() -> None:
    assert decode(FILES["jpeg"]).format == "JPEG"  # a copy does not know what file it comes from
    assert decode(FILES["jpeg-grey"]).format is None


def test_exif_rotation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(drawn(), "JPEG", exif=exif), LIMIT).size == (24, 16)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, LIMIT).getpixel((4, 4)) == (250, 0, 0)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"<html><body>404</body></html>", bytes(1000), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]
)
def test_bytes_that_are_no_image_are_unreadable(data: bytes, refused: Refusal) -> None:
    refused(Reason.IMAGE_UNREADABLE, decode, data, LIMIT)


@pytest.mark.parametrize("start", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"], ids=["bare", "in a box"])
def test_jpeg_xl_is_refused_by_name(start: bytes, loader: ImageLoader) -> None:
    with (
        pytest.raises(RowError, match="the image is a JPEG XL file, which is not read; convert it"),
        loader.decode(start + bytes(range(1, 200))),
    ):
        pass


def test_what_the_caller_raises_is_not_said_of_the_image(loader: ImageLoader) -> None:
    with pytest.raises(ZeroDivisionError), loader.decode(FILES["jpeg"]):
        raise ZeroDivisionError


@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "png-rgb", "webp", "bmp", "gif-animated", "tiff", "ppm"])
def test_a_file_cut_in_half_is_unreadable(name: str, refused: Refusal) -> None:
    data = FILES[name]
    refused(Reason.IMAGE_UNREADABLE, decode, data[: len(data) // 2], LIMIT)


def test_what_is_not_an_os_error_to_pillow_is_unreadable_too(refused: Refusal) -> None:
    error = refused(Reason.IMAGE_UNREADABLE, decode, FILES["avif"][:-5], LIMIT)
    assert "OSError" not in error.detail


def test_a_large_jpeg_that_lost_its_end_is_unreadable_and_not_padded_grey(refused: Refusal) -> None:
    data = encoded(Image.effect_noise((400, 400), 90).convert("RGB"), "JPEG")
    error = refused(Reason.IMAGE_UNREADABLE, decode, data[:-2000], LIMIT)
    assert "OSError" in error.detail


@pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 10_000), (13_400, 13_400)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int], refused: Refusal) -> None:
    refused(Reason.IMAGE_TOO_LARGE, decode, png_that_claims(*size), LIMIT)


def test_the_pixel_limit_is_the_callers(refused: Refusal) -> None:
    assert decode(png((20, 10)), 200).size == (20, 10)
    error = refused(Reason.IMAGE_TOO_LARGE, decode, png((20, 10)), 199)
    assert "20 x 10" in error.detail


def test_the_pixel_limit_needs_no_limit_of_pillow(monkeypatch: pytest.MonkeyPatch, refused: Refusal) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    refused(Reason.IMAGE_TOO_LARGE, decode, png_that_claims(30_000, 30_000), LIMIT)


@pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000), (201, 1)])
def test_a_thread_thin_image_is_too_large_to_resize(size: tuple[int, int], refused: Refusal) -> None:
    assert "200:1" in refused(Reason.IMAGE_TOO_LARGE, decode, png(size), LIMIT).detail


@pytest.mark.parametrize("file_format", ["EPS", "ICO", "PCX", "SGI", "IM", "SPIDER", "XBM"])
def test_parsers_that_data_sets_do_not_need_are_out_of_reach(file_format: str, refused: Refusal) -> None:
    mode = {"SPIDER": "F", "XBM": "1"}.get(file_format, "RGB")
    refused(Reason.IMAGE_UNREADABLE, decode, encoded(drawn(mode), file_format), LIMIT)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(
    name=st.sampled_from(sorted(FILES)),
    cut=st.floats(0.3, 1),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    at_least=st.sampled_from([None, 2]),
)
def test_damaged_files_give_an_image_or_a_row_error(
    name: str, cut: float, edits: list[tuple[float, int]], at_least: int | None
) -> None:
    data = bytearray(FILES[name])
    for place, value in edits:
        data[int(place * len(data))] = value
    with contextlib.suppress(RowError):
        assert decode(bytes(data[: int(cut * len(data))]), 1_000_000, at_least).mode == "RGB"


_NOISY = """
import sys
from pathlib import Path
from clip_operator.errors import RowError
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import Storage
assert "PIL" not in sys.modules, "importing the package must not import Pillow"
loader = ImageLoader(Storage(), ImagePolicy(root="."))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        with loader.decode(path.read_bytes()):
            pass
    except RowError as error:
        print(error.reason)
print("EPS" in sys.modules["PIL.Image"].OPEN)
"""


def test_warnings_of_pillow_do_not_reach_the_log(tmp_path: Path) -> None:
    (tmp_path / "1-bomb-warning.png").write_bytes(png_that_claims(10_000, 10_000))
    exif = Image.Exif()
    exif[0x010E] = "a description of the picture" * 3
    (tmp_path / "2-exif.tiff").write_bytes(encoded(drawn(), "TIFF", exif=exif)[:-40])
    (tmp_path / "3-palette.png").write_bytes(FILES["png-p-transparent"])
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", _NOISY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "plugins")},
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["image_unreadable", "image_unreadable", "False"]
