"""Images inside the row: bytes, Hugging Face structs, data URIs."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import Storage
from tests.images.conftest import Refusal, load
from tests.images.pictures import drawn, encoded, png

FILE = encoded(drawn())
BASE64 = base64.b64encode(FILE).decode()


@pytest.mark.parametrize(
    "reference",
    [
        FILE,
        bytearray(FILE),
        memoryview(FILE),
        {"bytes": FILE, "path": None},
        {"bytes": FILE, "path": "../../etc/passwd"},
        f"data:image/png;base64,{BASE64}",
        f"DATA:;BASE64,{BASE64}",
        f"data:image/png;name=x.png;base64,{BASE64.rstrip('=')}",
        f"data:image/png;base64,{BASE64.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
        "data:image/png;base64," + "\n".join(BASE64[i : i + 60] for i in range(0, len(BASE64), 60)),
        f"data:image/png,{quote_from_bytes(FILE)}",
        f"data:,{quote_from_bytes(FILE, safe='')}",
    ],
    ids=range(12),
)
def test_one_image_in_every_wrapping_is_one_location(loader: ImageLoader, reference: object) -> None:
    location = loader.locate(reference)
    assert location == loader.locate(FILE)
    assert len({location, loader.locate(FILE)}) == 1
    assert loader.fetch(location) == FILE
    assert load(loader, reference).tobytes() == drawn().tobytes()


def test_a_location_tells_whether_its_bytes_came_with_the_row(loader: ImageLoader) -> None:
    assert loader.locate(FILE).inline
    assert loader.locate(f"data:;base64,{BASE64}").inline
    assert not loader.locate({"bytes": None, "path": "x.png"}).inline


def test_other_bytes_are_another_location(loader: ImageLoader) -> None:
    assert loader.locate(png()) != loader.locate(FILE)


def test_a_changed_buffer_does_not_change_its_location(loader: ImageLoader) -> None:
    buffer = bytearray(FILE)
    location = loader.locate(buffer)
    buffer[:] = bytes(len(buffer))
    assert loader.fetch(location) == FILE


@pytest.mark.parametrize(
    "uri",
    ["data:image/png;base64", "data:", "data:;base64,A", "data:;base64,A===", "data:;base64,A-B+", "data:,\ud800"],
)
def test_a_broken_data_uri_is_unreadable(loader: ImageLoader, uri: str, refused: Refusal) -> None:
    refused(Reason.IMAGE_UNREADABLE, loader.locate, uri)


def test_no_bytes_are_unreadable_and_not_missing(loader: ImageLoader, refused: Refusal) -> None:
    for reference in (b"", {"bytes": b"", "path": "x.png"}, "data:,", "data:;base64,"):
        refused(Reason.IMAGE_UNREADABLE, load, loader, reference)


def test_too_many_bytes_are_refused_before_they_are_hashed(root: Path, refused: Refusal) -> None:
    size = len(FILE)
    exact = ImageLoader(Storage(), ImagePolicy(root=str(root), max_bytes=size))
    short = ImageLoader(Storage(), ImagePolicy(root=str(root), max_bytes=size - 1))
    for reference in (FILE, memoryview(FILE), f"data:;base64,{BASE64}", f"data:,{quote_from_bytes(FILE)}"):
        load(exact, reference)
        refused(Reason.IMAGE_TOO_LARGE, short.locate, reference)
