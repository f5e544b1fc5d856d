"""What the page on architecture says of rooms and layers is what the linter enforces and what there is."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from xml.etree import ElementTree

import pytest

from demo.airflow_home import REPOSITORY
from tests.docs.pages import table_under, text_of

PACKAGE = REPOSITORY / "plugins" / "clip_operator"
PAGE = "docs/architecture.md"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def layers() -> list[set[str]]:
    """The names in each layer, the uppermost first."""
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    [contract] = [contract for contract in contracts if contract["type"] == "layers"]
    return [set(layer.split(" | ")) for layer in contract["layers"]]


def test_the_picture_of_the_layers_shows_those_that_the_linter_checks(layers: list[set[str]]) -> None:
    rows: dict[int, set[str]] = defaultdict(set)
    for text in ElementTree.parse(REPOSITORY / "docs/images/layers.svg").iter(f"{SVG}text"):
        if text.get("class") is None:
            rows[int(text.attrib["y"])].add(text.text or "")
    assert [rows[height] for height in sorted(rows)] == layers


def test_the_table_tells_of_every_room(layers: list[set[str]]) -> None:
    told = [name for row in table_under(PAGE, "## The rooms") for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(told) == sorted(
        f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py" for layer in layers for name in layer
    )


def test_rooms_in_the_picture_are_rooms_that_there_are() -> None:
    texts = ElementTree.parse(REPOSITORY / "docs/images/architecture.svg").iter(f"{SVG}text")
    named = [name for text in texts if text.get("class") == "room" for name in (text.text or "").split()]
    assert named
    assert [name for name in named if not (PACKAGE / name).is_dir()] == []


def test_folders_that_the_page_names_are_there() -> None:
    folders = [name for name in re.findall(r"`([a-z0-9_/]+)/`", text_of(PAGE)) if not name.startswith("plugins")]
    places = [
        PACKAGE,
        PACKAGE / "operators",
        PACKAGE / "storage",
        PACKAGE / "images",
    ]  # a room in a room is named beside it
    assert [name for name in folders if not any((place / name).is_dir() for place in places)] == []
