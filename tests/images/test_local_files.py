"""Local files: what is read below the root, and that nothing outside of it ever is."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImageLocation, ImagePolicy
from clip_operator.storage import ObjectInfo, Storage, StorageError
from tests.conftest import not_root
from tests.images.conftest import Refusal, load
from tests.images.pictures import drawn, encoded, png

INSIDE, OUTSIDE = (10, 200, 10), (200, 10, 10)


@pytest.mark.parametrize(
    "name", ["a.png", "deep/down/b.png", "%2e%2e", "back\\slash.png", "ünï cödé.png", "scene:1.png"]
)
def test_a_file_is_found_by_relative_path_absolute_path_and_uri(root: Path, loader: ImageLoader, name: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(drawn()))
    for reference in (name, str(file), file.as_uri(), {"bytes": None, "path": name}):
        assert load(loader, reference).tobytes() == drawn().tobytes()


def test_what_is_not_a_file_is_not_found_and_does_not_hang(root: Path, loader: ImageLoader, refused: Refusal) -> None:
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling").symlink_to(root / "nothing")
    (root / "file.png").write_bytes(png())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        names = [
            "folder",
            "pipe",
            "loop",
            "dangling",
            "socket",
            "absent.png",
            "file.png/x.png",
            "x" * 300,
            "x/" * 3000 + "x",
        ]
        for name in names:
            refused(Reason.IMAGE_NOT_FOUND, load, loader, name)


def test_devices_are_not_found(refused: Refusal) -> None:
    loader = ImageLoader(Storage(), ImagePolicy(root="/dev"))
    refused(Reason.IMAGE_NOT_FOUND, load, loader, "zero")


def test_a_link_out_of_the_root_is_forbidden(tmp_path: Path, root: Path, loader: ImageLoader, refused: Refusal) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x.png").write_bytes(png())
    (root / "file.png").symlink_to(secret / "x.png")
    (root / "relative.png").symlink_to("../secret/x.png")
    (root / "folder").symlink_to(secret)
    (root / "twice").symlink_to(root / "folder")
    (root / "up").symlink_to("..")
    for name in ("file.png", "relative.png", "folder/x.png", "twice/x.png", "up/secret/x.png", "up/root/file.png"):
        refused(Reason.IMAGE_FORBIDDEN, load, loader, name)
        refused(Reason.IMAGE_FORBIDDEN, load, loader, str(root / name))


def test_links_within_the_root_and_a_root_that_is_a_link_are_fine(tmp_path: Path, root: Path) -> None:
    (root / "x.png").write_bytes(png())
    (root / "link.png").symlink_to("x.png")
    (tmp_path / "alias").symlink_to(root)
    loader = ImageLoader(Storage(), ImagePolicy(root=str(tmp_path / "alias")))
    for reference in ("x.png", "link.png", str(tmp_path / "alias" / "link.png"), str(root / "x.png")):
        load(loader, reference)


def test_a_forged_location_is_checked_again(tmp_path: Path, loader: ImageLoader, refused: Refusal) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    forged = ImageLocation(str(tmp_path / "secret.png"))
    refused(Reason.IMAGE_FORBIDDEN, loader.fetch, forged)
    refused(Reason.IMAGE_FORBIDDEN, ImageLoader(Storage(), ImagePolicy(root="s3://b")).fetch, forged)


def test_a_file_over_the_byte_limit_is_too_large(root: Path, refused: Refusal) -> None:
    data = png()
    (root / "x.png").write_bytes(data)
    load(ImageLoader(Storage(), ImagePolicy(root=str(root), max_bytes=len(data))), "x.png")
    short = ImageLoader(Storage(), ImagePolicy(root=str(root), max_bytes=len(data) - 1))
    refused(Reason.IMAGE_TOO_LARGE, load, short, "x.png")


def test_a_file_without_permission_is_forbidden(root: Path, loader: ImageLoader, refused: Refusal) -> None:
    (root / "x.png").write_bytes(png())
    (root / "x.png").chmod(0)
    with not_root():
        refused(Reason.IMAGE_FORBIDDEN, load, loader, "x.png")


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """A root between files that must not be read, under names that a reference may well hit."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        root = top / "a" / "root"
        (root / "a").mkdir(parents=True)
        (root / "%2e%2e").mkdir()
        (root / "out").symlink_to(top)
        for place in (top, top / "a", root, root / "a", root / "%2e%2e"):
            for name in ("x", "..x", "a\\x", "root2"):
                (place / name).write_bytes(png(color=INSIDE if place.is_relative_to(root) else OUTSIDE))
        yield root


_SEGMENT = st.one_of(
    st.sampled_from(
        ["..", ".", "", "x", "a", "root", "out", "..x", "a\\x", "root2", "%2e%2e", "%2E.", "..%2f", "..\\", "\0"]
    ),
    st.text(
        alphabet=st.sampled_from("./\\%2eax\0 ~$\N{TWO DOT LEADER}\N{FULLWIDTH FULL STOP}\N{FULLWIDTH SOLIDUS}"),
        max_size=6,
    ),
    st.text(max_size=4),
)
_PREFIX = st.sampled_from(
    [
        "",
        "",
        "",
        "/",
        "//",
        "./",
        "../",
        "file://",
        "file:///",
        "file://localhost/",
        "file:",
        "~/",
        "ROOT/",
        "file://ROOT/",
    ]
)


@settings(derandomize=True, deadline=None, max_examples=1500)
@given(prefix=_PREFIX, segments=st.lists(_SEGMENT, max_size=8))
def test_no_reference_whatever_reads_a_file_outside_the_root(tree: Path, prefix: str, segments: list[str]) -> None:
    reference = prefix.replace("ROOT", str(tree)) + "/".join(segments)
    loader = ImageLoader(Storage(), ImagePolicy(root=str(tree)))
    try:
        image = load(loader, reference)
    except RowError:
        return
    assert image.getpixel((0, 0)) == INSIDE


def test_many_threads_share_one_loader(root: Path, loader: ImageLoader, refused: Refusal) -> None:
    def color(index: int) -> tuple[int, int, int]:
        return (index * 5 % 256, index * 7 % 256, index * 11 % 256)

    for index in range(60):
        (root / f"{index}.png").write_bytes(png(color=color(index)))

    def check(index: int) -> None:
        if index % 10 == 9:
            refused(Reason.IMAGE_NOT_FOUND, load, loader, f"absent-{index}.png")
        else:
            assert load(loader, f"{index % 60}.png").getpixel((3, 3)) == color(index % 60)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(check, range(600)))


class SwappingStorage(Storage):
    """Has a folder exchanged for a link to elsewhere right when a file in it was looked at and is to be read."""

    def __init__(self, folder: Path, elsewhere: Path) -> None:
        super().__init__()
        self._folder, self._elsewhere = folder, elsewhere

    def _exchange(self) -> None:
        if not self._folder.is_symlink():
            self._folder.rename(self._folder.with_name("moved"))
            self._folder.symlink_to(self._elsewhere)

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        self._exchange()
        return super().read(uri, max_bytes)

    def read_version(self, uri: str, max_bytes: int | None = None) -> tuple[ObjectInfo, bytes]:
        self._exchange()
        return super().read_version(uri, max_bytes)


@pytest.mark.parametrize("fetch", ["fetch", "fetch_version"])
def test_a_link_that_takes_a_folders_place_when_its_file_was_looked_at_leads_nowhere(
    tmp_path: Path, root: Path, fetch: str
) -> None:
    for folder in (root / "folder", tmp_path / "elsewhere"):
        folder.mkdir()
        (folder / "x.png").write_bytes(folder.name.encode())
    loader = ImageLoader(SwappingStorage(root / "folder", tmp_path / "elsewhere"), ImagePolicy(root=str(root)))
    location = loader.locate("folder/x.png")
    read = getattr(loader, fetch)(location)
    assert (read if fetch == "fetch" else read[1]) == b"folder"
    with pytest.raises(RowError, match="image_forbidden"):
        getattr(loader, fetch)(location)


def test_the_version_of_a_file_names_its_real_path(root: Path, loader: ImageLoader) -> None:
    (root / "x.png").write_bytes(png())
    (root / "link.png").symlink_to("x.png")
    info, data = loader.fetch_version(loader.locate("link.png"))
    assert (info, data) == (Storage().stat(str(root / "x.png")), png())
    assert info.uri == loader.readable_uri(loader.locate("link.png"))


def test_whether_there_is_something_outside_is_not_told(tmp_path: Path, loader: ImageLoader, root: Path) -> None:
    (tmp_path / "there").write_bytes(png())
    told = []
    for name in ("there", "not-there"):
        (root / "link.png").unlink(missing_ok=True)
        (root / "link.png").symlink_to(tmp_path / name)
        with pytest.raises(RowError) as error:
            load(loader, "link.png")
        told.append(str(error.value))
    assert told[0] == told[1]


def test_what_goes_wrong_while_a_file_is_read_names_the_file(root: Path) -> None:
    class Broken(Storage):
        def read(self, uri: str, max_bytes: int | None = None) -> bytes:
            raise StorageError(f"{uri}: Input/output error")

    (root / "x.png").write_bytes(png())
    loader = ImageLoader(Broken(), ImagePolicy(root=str(root)))
    with pytest.raises(StorageError, match=f"^{root}/x.png: Input/output error$"):
        load(loader, "x.png")
