"""Images in base64 without a word before them, and names, which stay names."""

from __future__ import annotations

import base64
import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImagePolicy, shown
from clip_operator.storage import Storage
from tests.images.conftest import Refusal, load
from tests.images.pictures import drawn, encoded

FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM"]
LOADER = ImageLoader(Storage(), ImagePolicy(root="s3://bucket/data"))
ALPHABETS = {"standard": base64.b64encode, "for URLs": base64.urlsafe_b64encode}


@st.composite
def pictures(draw: st.DrawFn) -> Image.Image:
    """A picture of any size and content."""
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    colours = draw(st.binary(min_size=12, max_size=12))
    return Image.frombytes("RGB", (2, 2), colours).resize(size, Image.Resampling.BICUBIC)


@st.composite
def spellings(draw: st.DrawFn, file: bytes) -> str:
    """A file in base64 as some program writes it."""
    text = draw(st.sampled_from(sorted(ALPHABETS.items())))[1](file).decode()
    text = draw(st.sampled_from([text, text.rstrip("=")]))
    if width := draw(st.sampled_from([0, 64, 76])):
        mark = draw(st.sampled_from(["\n", "\r\n"]))
        text = mark.join(text[at : at + width] for at in range(0, len(text), width)) + mark
    return draw(st.sampled_from([text, f"data:image/x;base64,{text}"]))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.data(), pictures(), st.sampled_from(FORMATS))
def test_a_picture_of_any_format_in_any_spelling_is_its_file(
    data: st.DataObject, picture: Image.Image, file_format: str
) -> None:
    file = encoded(picture, file_format)
    location = LOADER.locate(data.draw(spellings(file)))
    assert location.inline
    assert location == LOADER.locate(file)
    assert LOADER.fetch(location) == file


def test_a_pictures_pixels_are_those_of_its_file(loader: ImageLoader) -> None:
    file = encoded(drawn(), "JPEG")
    assert load(loader, base64.b64encode(file).decode()).tobytes() == load(loader, file).tobytes()


def test_a_jpeg_with_an_unusual_start_is_known_where_it_is_longer_than_names() -> None:
    file = encoded(Image.effect_noise((90, 90), 90), "JPEG")
    commented = file[:2] + b"\xff\xfe\0\x06\1\2\3\4" + file[2:]
    assert LOADER.locate(base64.b64encode(commented).decode()).inline


_SEGMENTS = st.text(string.ascii_letters + string.digits + "-_+=", min_size=1, max_size=120)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.lists(_SEGMENTS, min_size=1, max_size=6).map("/".join))
@example("9j/4AAQSkZJRg")
@example("workspace/" + "a" * 300)
@example("BMW/" + "a" * 300)
@example("iVBORw0KGgo")
@example("iVBORw0KGgoAAAANSUhEUg")
@example("R0lGODlh")
@example("R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs.gif")
@example("SUkq" + "pictures" * 20)
@example("9j/" + "4f/2b9c1e" * 40)
@example("iVBORw0KGgoAAAANSUhEUgAAABgAAAAQCAIAAACDRijCAAAAA.png")
def test_a_path_stays_a_path(path: str) -> None:
    assert LOADER.locate(path).key == f"s3://bucket/data/{path}"
    local = ImageLoader(Storage(), ImagePolicy(root="/"))
    assert local.locate(f"/{path}").key == f"/{path}"


def test_what_is_cut_or_damaged_says_so_without_showing_itself(loader: ImageLoader, refused: Refusal) -> None:
    text = base64.b64encode(encoded(Image.effect_noise((90, 90), 90))).decode()
    cut = refused(Reason.IMAGE_UNREADABLE, load, loader, text[:5000])
    damaged = refused(Reason.IMAGE_UNREADABLE, loader.locate, text[:5000] + "!")
    both_alphabets = refused(Reason.IMAGE_UNREADABLE, loader.locate, text[:5000] + "-+__")
    not_unicode = refused(Reason.IMAGE_UNREADABLE, loader.locate, text[:5000] + "\ud800")
    assert "broken or cut short" in cut.detail
    for error in (damaged, both_alphabets, not_unicode):
        assert "not valid base64" in error.detail
        assert text[:24] not in error.detail


def test_a_picture_is_shown_by_its_first_characters() -> None:
    text = base64.b64encode(encoded(drawn())).decode()
    assert shown(text) == text[:16] + "…"


@pytest.mark.parametrize("width", [0, 76])
def test_too_large_a_picture_is_refused_whatever_its_line_breaks(root: Path, width: int, refused: Refusal) -> None:
    file = encoded(Image.effect_noise((90, 90), 90))
    text = base64.encodebytes(file).decode() if width else base64.b64encode(file).decode()
    for reference in (text, f"data:;base64,{text}"):
        assert ImageLoader(Storage(), ImagePolicy(str(root), max_bytes=len(file))).locate(reference).inline
        short = ImageLoader(Storage(), ImagePolicy(str(root), max_bytes=len(file) - 1))
        refused(Reason.IMAGE_TOO_LARGE, short.locate, reference)
