"""For how many pixels the loader asks room before it decodes an image, and when it gives it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import Storage
from tests.images.conftest import Refusal
from tests.images.pictures import (
    drawn,
    encoded,
    jpeg_with_a_scan_for_each_colour,
    jpeg_with_comments,
    png,
    png_that_claims,
)

LARGE = drawn(size=(640, 480))
REDUCED = 80 * 60  # what is decoded of LARGE for a model that wants 30 pixels


class Room:
    """Notes what is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.held = 0

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        self.asked.append(pixels)
        self.held += pixels
        try:
            yield
        finally:
            self.held -= pixels


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def loader(room: Room) -> ImageLoader:
    return ImageLoader(Storage(), ImagePolicy(root=".", max_pixels=10**6), room.of)


def test_an_image_has_room_for_all_its_pixels_inside_the_block(room: Room, loader: ImageLoader) -> None:
    with loader.decode(png((20, 10))):
        assert (room.asked, room.held) == ([200], 200)
    assert room.held == 0


def test_an_error_in_the_block_gives_the_room_back(room: Room, loader: ImageLoader) -> None:
    with pytest.raises(ZeroDivisionError), loader.decode(png((20, 10))):
        raise ZeroDivisionError
    assert (room.asked, room.held) == ([200], 0)


def test_an_image_that_claims_more_than_it_has_asks_before_it_is_decoded(
    room: Room, loader: ImageLoader, refused: Refusal
) -> None:
    refused(Reason.IMAGE_UNREADABLE, loader.decode(png_that_claims(40, 20)).__enter__)
    assert (room.asked, room.held) == ([800], 0)


def test_what_the_header_tells_needs_no_room(room: Room, refused: Refusal) -> None:
    loader = ImageLoader(Storage(), ImagePolicy(root=".", max_pixels=200), room.of)
    for reason, data in [(Reason.IMAGE_TOO_LARGE, png((20, 11))), (Reason.IMAGE_UNREADABLE, b"no image")]:
        refused(reason, loader.decode(data).__enter__)
    assert not room.asked


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_needs_room_for_what_is_decoded_of_it(mode: str, room: Room, loader: ImageLoader) -> None:
    with loader.decode(encoded(LARGE.convert(mode), "JPEG"), at_least=30):
        assert room.asked == [REDUCED]


# Headers in which a reader that takes the two bytes after a restart marker, or after a byte of padding, for a length
# lands in the comments, and finds there the start of a baseline file.
_FORGED = b"\xff\xc0\0\x11\x08\x01\xe0\x02\x80\x03" + bytes(9) + b"\xff\xda\0\x0c\x03"
_AFTER_PADDING = (b"x" * 65_276 + _FORGED).ljust(65_531, b"x")
_AFTER_RESTART = (b"x" * 65_530 + b"\xff\xfe\0", b"x" * 250 + _FORGED)


@pytest.mark.parametrize(
    "data",
    [
        encoded(LARGE, "JPEG", progressive=True),
        jpeg_with_a_scan_for_each_colour(LARGE),
        jpeg_with_comments(encoded(LARGE, "JPEG", progressive=True), *_AFTER_RESTART, before=b"\xff\xd0"),
        jpeg_with_comments(encoded(LARGE, "JPEG", progressive=True), _FORGED),
        jpeg_with_comments(encoded(LARGE, "JPEG", progressive=True), _AFTER_PADDING, before=b"\xff"),
    ],
    ids=["progressive", "a-scan-for-each-colour", "forged-after-restart", "in-a-comment", "forged-after-padding"],
)
def test_a_reduced_jpeg_that_needs_the_memory_of_all_its_pixels_asks_for_them_all(
    data: bytes, room: Room, loader: ImageLoader
) -> None:
    with loader.decode(data, at_least=30):
        assert room.asked == [640 * 480]


@pytest.mark.parametrize("at_least", [None, 200])
def test_a_jpeg_that_is_not_reduced_asks_for_all_its_pixels(
    at_least: int | None, room: Room, loader: ImageLoader
) -> None:
    with loader.decode(encoded(LARGE, "JPEG"), at_least=at_least):
        assert room.asked == [640 * 480]
