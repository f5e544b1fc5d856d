"""Every way in which a reference might climb out of the image root, against real files that lie outside of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_operator.errors import RowError
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import Storage
from tests.conftest import S3
from tests.images.conftest import load
from tests.images.pictures import png

INSIDE, OUTSIDE = (10, 200, 10), (200, 10, 10)

# {root} is the root's path, {top} that of the folder above, which holds x.png, secret/x.png and root2/x.png.
CLIMBING = [
    "../x.png",
    "../secret/x.png",
    "../root2/x.png",
    "./../x.png",
    ".//..//x.png",
    "a/../../x.png",
    "a/b/../../../x.png",
    "../root/../x.png",
    "{top}/x.png",
    "{root}/../x.png",
    "{root}2/x.png",
    "/{top}/x.png",
    "//{top}/x.png",
    "/proc/self/cwd/../x.png",
    "file://{top}/x.png",
    "FILE://{top}/x.png",
    "file:{top}/x.png",
    "file:///{top}/x.png",
    "file://localhost{top}/x.png",
    "file://127.0.0.1{top}/x.png",
    "file://{root}/../x.png",
    "file://{root}/%2e%2e/x.png",
    "file://{root}/%2E./x.png",
    "file://{root}/..%2fx.png",
    "file://{root}%2f..%2fx.png",
    "file://{root}/%252e%252e/x.png",
    "file://{root}2/x.png",
    "file://{root}/a?/../../x.png",
    "file://{root}/a#/../../x.png",
    "%2e%2e/x.png",
    "..%2fx.png",
    "%2e%2e%2fx.png",
    "..%c0%afx.png",
    "..\\x.png",
    "..\\..\\x.png",
    "a\\..\\..\\x.png",
    "C:\\x.png",
    "C:/x.png",
    "C:../x.png",
    "\\\\?\\{top}\\x.png",
    "\\\\127.0.0.1\\c$\\x.png",
    "//127.0.0.1/{top}/x.png",
    "../x.png\0",
    "x.png\0/../../x.png",
    "a\0/../../x.png",
    "file://{top}/x.png%00",
    "~/x.png",
    "~root/x.png",
    "$HOME/x.png",
    "${{PWD}}/../x.png",
    "`pwd`/../x.png",
    "..\N{FULLWIDTH SOLIDUS}x.png",
    "..\N{FRACTION SLASH}x.png",
    "..\N{DIVISION SLASH}x.png",
    "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x.png",
    "\N{TWO DOT LEADER}/x.png",
    ".\N{ZERO WIDTH SPACE}./x.png",
    "..\N{COMBINING ACUTE ACCENT}/x.png",
    "\N{RIGHT-TO-LEFT OVERRIDE}../x.png",
    " ../x.png",
    "../x.png ",
    ".. /x.png",
    "..;/x.png",
    "..../x.png",
    "....//x.png",
    "link.png",
    "folder/x.png",
    "folder/secret/x.png",
    "folder/../x.png",
    "sibling.png",
    "chain/x.png",
    "up/x.png",
    "up/root/../x.png",
    "up/root/link.png",
    "{root}/link.png",
    "file://{root}/folder/x.png",
    "{alias}/link.png",
    "{alias}/../x.png",
    "{alias}/folder/x.png",
    "s3://../x.png",
    "local://{top}/x.png",
    "dir://{top}/x.png",
    "simplecache::file://{top}/x.png",
    "filecache::{top}/x.png",
    "zip://x.png::{top}/x.zip",
    "memory://x.png",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root between files that must not be read, with links of every kind that lead out of it."""
    top = tmp_path_factory.mktemp("top")
    root = top / "root"
    for folder in (root / "a" / "b", top / "secret", top / "root2"):
        folder.mkdir(parents=True)
    for place in (root, root / "a", root / "a" / "b", top, top / "secret", top / "root2"):
        (place / "x.png").write_bytes(png(color=INSIDE if place.is_relative_to(root) else OUTSIDE))
    (root / "link.png").symlink_to(top / "x.png")
    (root / "sibling.png").symlink_to(top / "root2" / "x.png")
    (root / "folder").symlink_to(top)
    (root / "chain").symlink_to(root / "folder" / "secret")
    (root / "up").symlink_to("..")
    (top / "alias").symlink_to(root)
    return root


def written(reference: str, root: Path) -> str:
    return reference.format(root=root, top=root.parent, alias=root.parent / "alias")


@pytest.mark.parametrize("form", [str, lambda text: {"bytes": None, "path": text}], ids=["text", "struct"])
@pytest.mark.parametrize("start", ["root", "alias"])
@pytest.mark.parametrize("reference", CLIMBING)
def test_no_reference_climbs_out_of_a_local_root(
    root: Path, reference: str, start: str, form: Callable[[str], object]
) -> None:
    loader = ImageLoader(Storage(), ImagePolicy(str(root.parent / start)))
    for text in {unicodedata.normalize(kind, written(reference, root)) for kind in ("NFC", "NFD")}:
        try:
            image = load(loader, form(text))
        except RowError:
            continue
        assert image.getpixel((0, 0)) == INSIDE  # a link followed by ".." ends where the link stands


def test_the_files_outside_would_be_found_if_they_were_allowed(root: Path) -> None:
    loader = ImageLoader(Storage(), ImagePolicy(str(root.parent)))
    for reference in ("x.png", "root/link.png", "root/folder/x.png", "root/chain/x.png", "root/up/x.png"):
        assert load(loader, reference).getpixel((0, 0)) == OUTSIDE


def test_no_reference_of_a_data_set_in_s3_reads_the_local_disk(root: Path, s3: S3) -> None:
    loader = ImageLoader(s3.storage, ImagePolicy(f"s3://{s3.bucket}/data"))
    for reference in [*CLIMBING, str(root / "x.png"), (root / "x.png").as_uri(), "{root}/x.png", "x.png"]:
        with pytest.raises(RowError):
            load(loader, written(reference, root))


def test_names_that_normalise_to_one_another_are_different_files(root: Path) -> None:
    composed, decomposed = (unicodedata.normalize(kind, "é.png") for kind in ("NFC", "NFD"))
    (root / composed).write_bytes(png(color=INSIDE))
    loader = ImageLoader(Storage(), ImagePolicy(str(root)))
    assert load(loader, composed).getpixel((0, 0)) == INSIDE
    with pytest.raises(RowError, match="image_not_found"):
        load(loader, decomposed)
