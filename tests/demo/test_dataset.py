"""The demo data set: the same every time, with the bad rows it promises and no others."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo.dataset import ROWS, write_dataset


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def rows(captions: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captions.read_text(encoding="utf-8").splitlines()]


def test_it_is_the_same_every_time(captions: Path, tmp_path: Path) -> None:
    again = write_dataset(tmp_path / "again")
    for first in captions.parent.rglob("*.*"):
        assert first.read_bytes() == (again.parent / first.relative_to(captions.parent)).read_bytes()


def test_most_captions_are_right_and_about_a_quarter_wrong(rows: list[dict[str, Any]]) -> None:
    labels = Counter(row["label"] for row in rows)
    assert len(rows) == len({row["id"] for row in rows}) == ROWS
    assert labels["match"] > 40
    assert 14 <= labels["mismatch"] <= 18
    assert all(labels[bad] == 1 for bad in ("broken_image", "missing_image", "empty_text", "null_text"))


def test_only_the_rows_that_say_so_are_bad(captions: Path, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        path = captions.parent / row["image_path"]
        assert path.exists() == (row["label"] != "missing_image")
        assert (row["text"] == "") == (row["label"] == "empty_text")
        assert (row["text"] is None) == (row["label"] == "null_text")
        assert row["alt_text"]
        assert row["alt_text"] != row["text"]
        if row["label"] == "broken_image":
            with pytest.raises(OSError, match="truncated"), Image.open(path) as picture:
                picture.load()
        elif path.exists():
            with Image.open(path) as picture:
                picture.load()


def test_the_pictures_are_of_many_kinds(captions: Path) -> None:
    kinds, sides, portraits = set(), set(), 0
    for path in (captions.parent / "images").iterdir():
        with Image.open(path) as picture:
            kinds.add((picture.format, picture.mode))
            sides |= set(picture.size)
            portraits += picture.height > picture.width
    assert kinds == {("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("JPEG", "L")}
    assert min(sides) >= 128
    assert max(sides) <= 256
    assert portraits
