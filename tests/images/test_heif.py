"""HEIF files (HEIC): read where their decoder is installed, by name refused where it is not."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy, heif
from clip_operator.images.orientation import turning
from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.storage import Storage
from tests.conftest import missing_part
from tests.images.conftest import Refusal, decode
from tests.images.pictures import drawn, encoded

PICTURE = drawn(size=(250, 160))
# The start of a file that a phone has written; there is no more of it.
START = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"


@pytest.fixture(scope="module")
def heic() -> bytes:
    """A photograph that is stored on its side, as phones write it."""
    if find_spec("pillow_heif") is None:
        missing_part("pillow-heif")
    heif.load_decoder()
    image = PICTURE.copy()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    return encoded(image, "HEIF", quality=90)


def plain_pillow(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_pixels_are_those_of_plain_pillow_and_upright_already(heic: bytes) -> None:
    image = decode(heic)
    assert image.size == (160, 250)
    assert image.tobytes() == plain_pillow(heic).tobytes()
    assert ImageOps.exif_transpose(Image.open(io.BytesIO(heic))).convert("RGB").tobytes() == image.tobytes()
    assert turning(image) is None


def test_it_is_decoded_whole_where_jpegs_need_not_be(heic: bytes) -> None:
    assert decode(heic, at_least=20).size == (160, 250)


def test_workers_decode_it_within_their_limits(heic: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(heic)
    large = encoded(Image.effect_noise((2000, 1500), 20).convert("RGB"), "HEIF", quality=50)
    (tmp_path / "large.heic").write_bytes(large)
    images = ImageLoader(Storage(), ImagePolicy(str(tmp_path)))
    with ImageWorkers(images, Storage(), 60, most=1, upright=True) as workers:
        for name, size in (("photo.heic", (154, 240)), ("large.heic", (240, 180))):
            with Image.open(io.BytesIO(workers.thumbnail(images.locate(name)))) as image:
                assert image.size == size


def test_too_many_pixels_are_refused_by_the_header(heic: bytes, refused: Refusal) -> None:
    refused(Reason.IMAGE_TOO_LARGE, decode, heic, 39_999)


def test_a_file_cut_in_half_is_unreadable(heic: bytes, refused: Refusal) -> None:
    refused(Reason.IMAGE_UNREADABLE, decode, heic[: len(heic) // 2])


@settings(derandomize=True, deadline=None, max_examples=100)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_files_give_an_image_or_a_row_error(heic: bytes, edits: list[tuple[float, int]]) -> None:
    data = bytearray(heic)
    for place, value in edits:
        data[int(place * min(len(data), 600))] = value
    with contextlib.suppress(RowError):
        assert decode(bytes(data), 1_000_000).mode == "RGB"


def test_without_the_decoder_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, refused: Refusal) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heif.load_decoder.cache_clear()
    error = refused(Reason.IMAGE_UNREADABLE, decode, START + bytes(1000))
    assert "HEIC" in error.detail
    assert "install the extra heif" in error.detail


def test_avif_under_the_brand_that_both_have_is_no_heif() -> None:
    assert heif.is_heif(START)
    assert heif.is_heif(START.replace(b"heic", b"mif1"))
    assert not heif.is_heif(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf")
    assert not heif.is_heif(encoded(PICTURE, "AVIF"))


def test_the_decoder_is_loaded_by_the_first_such_file_alone() -> None:
    program = (
        "import sys; from tests.images.conftest import decode; from tests.images.pictures import png; "
        "decode(png()); print('pillow_heif' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
