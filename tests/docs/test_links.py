"""What the documentation links to is there, and what it holds as data can be read."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
import yaml

from tests.docs.pages import Block, anchors, blocks, links, pages, path_beside

LANGUAGES = {"", "text", "console", "bash", "python", "json", "yaml"}


def dead(page: str, link: str) -> bool:
    if link.startswith(("https://", "http://", "mailto:")):
        return False  # the tests reach no host
    target, _, anchor = link.partition("#")
    path = path_beside(page, target) if target else path_beside(page, page.rpartition("/")[2])
    if not path.exists():
        return True
    if not anchor:
        return False
    name = path.resolve().relative_to(path_beside("README.md", "").resolve()).as_posix()
    return path.suffix != ".md" or anchor not in anchors(name)


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: str) -> None:
    assert [link for link in links(page) if dead(page, link)] == []


def test_every_page_is_found_from_the_indexes() -> None:
    indexes = ("docs/README.md", "docs/decisions/README.md")
    linked = {path_beside(index, link.partition("#")[0]).resolve() for index in indexes for link in links(index)}
    own = [page for page in pages() if page.startswith("docs/") and page != "docs/README.md"]
    assert [page for page in own if path_beside("README.md", page).resolve() not in linked] == []


def test_every_picture_in_docs_is_shown_on_some_page() -> None:
    shown = {path_beside(page, link).resolve() for page in pages() for link in links(page)}
    kept = [path for path in path_beside("docs/README.md", "images").iterdir() if path.is_file()]
    assert kept
    assert [path.name for path in kept if path.resolve() not in shown] == []


def test_drawings_hold_no_scripts_and_say_what_they_show() -> None:
    for drawing in path_beside("docs/README.md", "images").glob("*.svg"):
        root = ElementTree.parse(drawing).getroot()
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert {"title", "desc"} <= tags
        assert not tags & {"script", "foreignObject", "image", "use"}


def test_blocks_are_in_languages_that_a_test_reads() -> None:
    assert [f"{block.where}: {block.language}" for block in blocks() if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("block", blocks("json", "yaml"), ids=lambda block: block.where)
def test_data_can_be_read(block: Block) -> None:
    if block.language == "json":
        assert json.loads(block.text)
    else:
        assert all(yaml.safe_load_all(block.text))
