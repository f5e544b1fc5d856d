"""Schemes by which fsspec reaches disks and hosts: a data set comes no further with any of them."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import ObjectNotFound, Storage, StorageError
from tests.images.conftest import Refusal, load
from tests.images.pictures import png

INSIDE, OUTSIDE = (10, 200, 10), (200, 10, 10)

SCHEMES = sorted({*known_implementations, *fsspec.available_protocols(), "s3", "gs", "abfss", "blob", "tarfile"})

# {top} is the folder above a local root, with x.png and x.zip in it.
FORMS = [
    "{scheme}://{top}/x.png",
    "{scheme}:///{top}/x.png",
    "{scheme}:{top}/x.png",
    "{scheme}::{top}/x.png",
    "{scheme}::file://{top}/x.png",
    "{scheme}://x.png::{top}/x.zip",
    "{scheme}://x.png::file://{top}/x.zip",
    "zip://x.png::{scheme}://{top}/x.zip",
    "{scheme}://box/secret/x.png",
    "{scheme}://box/data/../secret/x.png",
    "{scheme}://127.0.0.1:9/x.png",
    "{scheme}://user:password@127.0.0.1:9/x.png",
    "{scheme}::http://127.0.0.1:9/x.png",
]


class EmptyStorage(Storage):
    """Tells which objects it was asked for, and has none."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_for: list[str] = []

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        self.asked_for.append(self.canonical(uri))
        raise ObjectNotFound(uri)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root and what lies beside it."""
    top = tmp_path_factory.mktemp("top")
    (top / "root").mkdir()
    (top / "root" / "x.png").write_bytes(png(color=INSIDE))
    (top / "x.png").write_bytes(png(color=OUTSIDE))
    (top / "root" / "link.png").symlink_to(top / "x.png")
    (top / "root" / "folder").symlink_to(top)
    (top / "root" / "own.png").symlink_to("x.png")
    return top


@pytest.mark.parametrize(
    ("root", "within"),
    [
        ("{top}/root", "{top}/root/"),
        ("file://{top}/root", "{top}/root/"),
        ("local://{top}/root", "{top}/root/"),
        ("memory://box/data", "memory:///box/data/"),
        ("s3://box/data", "s3://box/"),  # the bucket of the root is open
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_scheme_leads_out_of_the_root(top: Path, scheme: str, root: str, within: str) -> None:
    storage = EmptyStorage()
    loader = ImageLoader(storage, ImagePolicy(root.format(top=top)))
    for form in FORMS:
        with pytest.raises(RowError):
            load(loader, form.format(scheme=scheme, top=top))
    assert [uri for uri in storage.asked_for if not uri.startswith(within.format(top=top))] == []


@pytest.mark.parametrize("scheme", ["local", "LOCAL", "file"])
def test_links_are_followed_within_the_root_only_whatever_scheme_names_the_disk(
    top: Path, scheme: str, refused: Refusal
) -> None:
    root = f"{scheme}://{top}/root"
    loader = ImageLoader(Storage(), ImagePolicy(root))
    for name in ("link.png", "folder/x.png", "folder/root/../x.png"):
        for reference in (name, f"{root}/{name}"):
            with pytest.raises(RowError):
                load(loader, reference)
    location = loader.locate("link.png")
    refused(Reason.IMAGE_FORBIDDEN, loader.fetch, location)
    refused(Reason.IMAGE_FORBIDDEN, loader.fetch_version, location)
    assert loader.readable_uri(location) is None
    for name in ("x.png", "own.png", f"{root}/x.png"):
        assert load(loader, name).getpixel((0, 0)) == INSIDE


def test_a_root_on_the_disk_may_be_reached_by_a_link(top: Path) -> None:
    (top / "alias").symlink_to(top / "root")
    loader = ImageLoader(Storage(), ImagePolicy(f"local://{top}/alias"))
    assert load(loader, "x.png").getpixel((0, 0)) == INSIDE


def test_one_file_is_one_object_whatever_scheme_names_the_disk(top: Path) -> None:
    path = str(top / "root" / "own.png")
    assert {Storage().canonical(uri) for uri in (path, f"file://{path}", f"local://{path}")} == {
        str(top / "root" / "x.png")
    }


@pytest.mark.parametrize("scheme", ["dir", "filecache", "simplecache"])
def test_a_driver_that_leads_to_the_disk_by_another_one_is_not_used(
    top: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its paths are not those of the disk, so nobody could tell where links lead."""
    settings = {"target_protocol": "file"} | ({"path": str(top)} if scheme == "dir" else {})
    monkeypatch.setitem(fsspec.config.conf, scheme, settings)
    with pytest.raises(StorageError, match="leads to the local disk by another one; write the path itself"):
        Storage().stat(f"{scheme}://root/x.png")


def test_a_driver_that_keeps_copies_of_a_store_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "simplecache", {"target_protocol": "memory"})
    with patch.object(MemoryFileSystem, "store", {}):
        fsspec.filesystem("memory").pipe_file("/box/data/x.png", png(color=INSIDE))
        loader = ImageLoader(Storage(), ImagePolicy("simplecache://box/data"))
        assert load(loader, "x.png").getpixel((0, 0)) == INSIDE
