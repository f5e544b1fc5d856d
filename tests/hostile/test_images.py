"""Data sets whose images are broken, huge, odd or no files at all: each row's own result, and nobody else's changed."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.image_files import bombs, whole_files
from tests.hostile.jobs import plain_image, plain_score, score_rows
from tests.images.pictures import png

# What Pillow warns of when it alone reads a damaged file, to compare with.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

TEXT = "a red circle"
WHOLE = whole_files()
DAMAGED_FORMATS = ("jpg", "png", "gif", "webp", "tif", "bmp", "jp2", "avif", "ppm", "tga")
NO_IMAGES = {
    "empty.jpg": b"",
    "one-byte.png": b"\x89",
    "page.jpg": b"<!doctype html><html><body>404 Not Found</body></html>",
    "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "zeros.png": bytes(100_000),
    "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
}
ODD_NAMES = [
    "new\nline.png",
    "😀👨‍👩‍👧.png",
    "\u202egnp.xcod\u05d0.png",
    " leading and trailing ",
    "%00.png",
    "-rf",
    "x" * 255,
]


def damaged_files() -> dict[str, bytes]:
    """Return each kind of file cut at several places, and with some bytes changed."""
    draw = random.Random(11)
    damaged = {}
    for name, data in WHOLE.items():
        for percent in (10, 30, 50, 90):
            damaged[f"cut-{percent}-{name}"] = data[: len(data) * percent // 100]
        damaged[f"cut-last-{name}"] = data[:-1]
        for number in range(4):
            flipped = bytearray(data)
            for _ in range(draw.choice((1, 3, 20))):
                flipped[draw.randrange(8, len(data))] ^= 1 << draw.randrange(8)
            damaged[f"flip-{number}-{name}"] = bytes(flipped)
    return damaged


DAMAGED = damaged_files()


@dataclass
class Scored:
    """The results of one evaluation of everything here, and of one in which all is well."""

    by_reference: dict[str, dict[str, Any]]
    neighbours: list[float]
    clean: list[float]

    def why(self, reference: str) -> str | None:
        why: str | None = self.by_reference[reference]["why"]
        return why

    def score(self, reference: str) -> float | None:
        score: float | None = self.by_reference[reference]["clip_score"]
        return score


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    top = tmp_path_factory.mktemp("hostile")
    root = top / "root"
    root.mkdir()
    for name, data in {**WHOLE, **DAMAGED, **bombs(), **NO_IMAGES, **dict.fromkeys(ODD_NAMES, png())}.items():
        (root / name).write_bytes(data)
    for number in range(7):
        (root / f"neighbour-{number}.png").write_bytes(png(color=(30 * number, 200 - 20 * number, 90)))
    (root / "thin.png").write_bytes(png((1, 10_000)))
    (top / "secret.png").write_bytes(png())
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    (root / "out.png").symlink_to(top / "secret.png")
    (root / "up").symlink_to("..")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "loop.png").symlink_to("other-loop.png")
    (root / "other-loop.png").symlink_to("loop.png")
    (root / "dangling.png").symlink_to("nothing")
    (root / "within.png").symlink_to("rgb.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root)  # a socket's address is short
        listener.bind("socket.png")
        os.chdir(here)
        yield root


PLACES = {
    "folder.png": "image_not_found",
    "pipe.png": "image_not_found",
    "socket.png": "image_not_found",
    "loop.png": "image_not_found",
    "dangling.png": "image_not_found",
    "absent.png": "image_not_found",
    "rgb.png/x": "image_not_found",
    "x" * 4096: "image_not_found",
    "x/" * 2047 + "x": "image_not_found",
    "zero.png": "image_forbidden",
    "out.png": "image_forbidden",
    "up/secret.png": "image_forbidden",
    "../secret.png": "image_forbidden",
    "/dev/zero": "image_forbidden",
    "/dev/stdin": "image_forbidden",
    "/proc/self/environ": "image_forbidden",
    "file:///etc/passwd": "image_forbidden",
    "rgb.png\0.jpg": "image_forbidden",
    "http://127.0.0.1:1/x.png": "image_forbidden",
    "javascript:alert(1)": "image_forbidden",
    "\ud83d.png": "image_not_found",
    "data:image/png;base64,@@@@": "image_unreadable",
    "data:image/png": "image_unreadable",
}


@pytest.fixture(scope="module")
def scored(folder: Path) -> Scored:
    references = [*WHOLE, *DAMAGED, *bombs(), *NO_IMAGES, *ODD_NAMES, *PLACES, "thin.png", "within.png"]
    neighbours = [{"image_path": f"neighbour-{number % 7}.png", "text": f"{number} circles"} for number in range(100)]
    clean = score_rows(folder, neighbours, "clean")
    mixed: list[dict[str, Any]] = [{"image_path": reference, "text": TEXT} for reference in references]
    draw = random.Random(5)
    for row in neighbours:
        mixed.insert(draw.randrange(len(mixed) + 1), row)
    results = score_rows(folder, mixed, "hostile")
    by_text = {row["text"]: row["clip_score"] for row in results}
    return Scored(
        {row["image_path"]: row for row in results if row["text"] == TEXT},
        [by_text[row["text"]] for row in neighbours],
        [row["clip_score"] for row in clean],
    )


def test_the_scores_of_all_other_rows_are_those_of_a_clean_run(scored: Scored) -> None:
    assert scored.neighbours == pytest.approx(scored.clean, abs=1e-6)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_scores_as_its_first_frame_in_plain_pillow(scored: Scored, name: str) -> None:
    assert scored.score(name) == pytest.approx(plain_score(plain_image(WHOLE[name]), TEXT), abs=1e-5)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_scores_as_plain_pillow_reads_it_or_is_unreadable(scored: Scored, name: str) -> None:
    try:
        image = plain_image(DAMAGED[name])
    except Exception:
        # A changed width or height may be more than what is accepted, or a shape too thin.
        assert scored.why(name) in {"image_unreadable", "image_too_large"}
    else:
        assert scored.why(name) is None or max(image.size) > 200 * min(image.size)
        assert scored.score(name) in (None, pytest.approx(plain_score(image, TEXT), abs=1e-5))


@pytest.mark.parametrize("file_format", DAMAGED_FORMATS)
def test_a_file_cut_in_half_is_unreadable(scored: Scored, file_format: str) -> None:
    names = [name for name in DAMAGED if name.startswith("cut-50-") and name.endswith(file_format)]
    assert {scored.why(name) for name in names} == {"image_unreadable"}


@pytest.mark.parametrize("name", bombs())
def test_a_small_file_of_a_huge_image_is_too_large(scored: Scored, name: str) -> None:
    assert scored.why(name) == "image_too_large"


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_unreadable_whatever_its_name(scored: Scored, name: str) -> None:
    assert scored.why(name) == "image_unreadable"


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_a_file_is_found_under_any_name(scored: Scored, name: str) -> None:
    assert scored.why(name) is None


@pytest.mark.parametrize(("reference", "why"), PLACES.items(), ids=lambda value: ascii(value)[:40])
def test_what_is_not_a_file_below_the_root_has_a_reason(scored: Scored, reference: str, why: str) -> None:
    assert scored.why(reference) == why


def test_an_image_too_thin_to_resize_is_too_large(scored: Scored) -> None:
    assert scored.why("thin.png") == "image_too_large"


def test_a_link_within_the_root_is_its_file(scored: Scored) -> None:
    assert scored.score("within.png") == scored.score("rgb.png")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"max_image_pixels": 24 * 16}, None),
        ({"max_image_pixels": 24 * 16 - 1}, "image_too_large"),
        ({"max_image_bytes": len(WHOLE["rgb.png"])}, None),
        ({"max_image_bytes": len(WHOLE["rgb.png"]) - 1}, "image_too_large"),
    ],
)
def test_the_limits_of_pixels_and_bytes_are_the_requests(
    tmp_path: Path, fields: dict[str, int], why: str | None
) -> None:
    (tmp_path / "rgb.png").write_bytes(WHOLE["rgb.png"])
    (tmp_path / "small.png").write_bytes(WHOLE["1x1.png"])
    rows = [{"image_path": name, "text": TEXT} for name in ("rgb.png", "small.png")]
    assert [row["why"] for row in score_rows(tmp_path, rows, "t", **fields)] == [why, None]
