"""What is particular to local files: names, modes, and writes that are whole or not there."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import resource
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clip_operator.storage import (
    AccessDenied,
    ObjectChanged,
    ObjectNotFound,
    Storage,
    StorageError,
    Unchanged,
    local_version,
)
from tests.conftest import not_root


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def rewritten(path: Path) -> None:
    path.write_bytes(b"after!")


def copied_over(path: Path) -> None:
    (path.parent / "new").write_bytes(b"after!")
    shutil.copystat(path, path.parent / "new")
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # until the kernel's clock has ticked
        shutil.copy2(path.parent / "new", path)


def put_in_its_place(path: Path) -> None:
    (path.parent / "new").write_bytes(b"after!")
    shutil.copystat(path, path.parent / "new")
    (path.parent / "new").replace(path)


def unpacked(path: Path) -> None:
    member = tarfile.TarInfo(path.name)
    member.size, member.mtime = 6, path.stat().st_mtime
    with tarfile.open(path.parent / "new.tar", "w") as archive:
        archive.addfile(member, io.BytesIO(b"after!"))
    with tarfile.open(path.parent / "new.tar") as archive:
        archive.extractall(path.parent, filter="data")


@pytest.mark.parametrize("replace", [rewritten, copied_over, put_in_its_place, unpacked])
def test_a_file_that_was_replaced_is_another_version_though_its_size_and_time_are_those_of_the_old(
    tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"before")
    os.utime(path, (1e9, 1e9))
    seen = Storage().stat(str(path))
    replace(path)
    assert Storage().stat(str(path)) != seen
    with pytest.raises(ObjectChanged):
        Storage().download(seen, tmp_path / "copy")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)], indirect=["umask"])
def test_an_uploaded_file_has_the_mode_that_the_umask_allows(tmp_path: Path, umask: int, mode: int) -> None:
    Storage().write(b"x", str(tmp_path / "step.jsonl"))
    assert (tmp_path / "step.jsonl").stat().st_mode & 0o777 == mode


def test_an_upload_leaves_the_umask_of_the_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other threads create files meanwhile; a umask of 0, even for a moment, would open theirs to everyone.
    calls: list[int] = []
    monkeypatch.setattr(os, "umask", calls.append)
    Storage().write(b"x", str(tmp_path / "step.jsonl"))
    assert calls == []


def test_an_upload_makes_the_folders_on_its_way(tmp_path: Path) -> None:
    Storage().write(b"x", str(tmp_path / "a" / "b" / "step.jsonl"))
    assert (tmp_path / "a" / "b" / "step.jsonl").read_bytes() == b"x"


def test_an_upload_leaves_nothing_else_beside_the_file(tmp_path: Path) -> None:
    Storage().write(b"x", str(tmp_path / "step.jsonl"))
    assert [path.name for path in tmp_path.iterdir()] == ["step.jsonl"]


def test_an_upload_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out" / "step.jsonl").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*step\.jsonl: Is a directory"):
        Storage().write(b"x", str(tmp_path / "out" / "step.jsonl"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["step.jsonl"]


def test_an_upload_of_a_file_that_is_gone_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "step.jsonl").write_bytes(b"old")
    with pytest.raises(StorageError, match="cannot write"):
        Storage().upload(tmp_path / "gone", str(tmp_path / "out" / "step.jsonl"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {"step.jsonl": b"old"}


def test_an_upload_that_a_signal_interrupts_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "step.jsonl").write_bytes(b"old")

    def interrupted(descriptor: int) -> None:  # stands in for a signal that arrives just before the rename
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Storage().write(b"new", str(tmp_path / "step.jsonl"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"step.jsonl": b"old"}


def test_a_reader_that_has_the_old_file_open_reads_it_to_its_end(tmp_path: Path) -> None:
    uri = str(tmp_path / "step.jsonl")
    Storage().write(b"old and whole", uri)
    with Path(uri).open("rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        Storage().write(b"new", uri)
        assert reader.read() == b" and whole"


def test_where_inodes_are_dealt_out_anew_with_every_mount_they_are_no_part_of_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path.stat()
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(local_version, "_MOUNTS", mounts)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    for kind, is_told in (("ext4", True), ("fuse.gcsfuse", False)):
        mounts.write_text(f"27 1 0:0 / / rw - fuse x rw\n28 27 {device} / /mnt rw shared:1 - {kind} bucket rw\n")
        local_version._numbers_files_anew.cache_clear()
        remounted = SimpleNamespace(**{name: getattr(status, name) for name in dir(status) if name.startswith("st_")})
        remounted.st_ino += 1
        assert (local_version.etag_of(status) != local_version.etag_of(cast("os.stat_result", remounted))) is is_told
    local_version._numbers_files_anew.cache_clear()


def test_a_version_that_is_replaced_while_it_is_open_is_read_to_its_end(tmp_path: Path) -> None:
    old = Storage().write(bytes(3 << 20), str(tmp_path / "x"))
    with Storage().open(old) as reader:
        start = reader.read(10)
        Storage().write(b"new", old.uri)
        assert start + reader.read() == bytes(3 << 20)


def test_a_folder_where_a_file_stands_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        Storage().write(b"x", str(tmp_path / "file" / "step.jsonl"))
    with pytest.raises(ObjectNotFound):
        Storage().stat(str(tmp_path / "file" / "step.jsonl"))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ObjectNotFound, match="is not a file"):
        Storage().read(str(tmp_path / "pipe"))


def test_a_file_uri_and_its_path_are_the_same_file(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    Storage().write(b"x", str(folder / "c%d.txt"))
    for uri in (f"file://{tmp_path}/a%20b/c%25d.txt", f"FILE://localhost{tmp_path}/a b/c%25d.txt"):
        assert Storage().read(uri) == b"x"


def test_a_file_uri_may_hold_marks_that_someone_forgot_to_quote(tmp_path: Path) -> None:
    Storage().write(b"right", f"file://{tmp_path}/a#1?.txt")
    assert (tmp_path / "a#1?.txt").read_bytes() == b"right"


def test_a_file_uri_with_a_host_is_refused_with_what_was_meant() -> None:
    with pytest.raises(StorageError, match=r"names no host; write file:///data/x\.jsonl"):
        Storage().stat("file://data/x.jsonl")


def test_a_relative_path_starts_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Storage().write(b"x", "step.jsonl")
    assert [info.uri for info in Storage().list("st")] == ["step.jsonl"]
    assert Storage().read("./step.jsonl") == b"x"


def test_a_list_of_a_file_uri_starts_with_the_prefix_as_it_was_written(tmp_path: Path) -> None:
    Storage().write(b"x", str(tmp_path / "a b" / "step 1.jsonl"))
    for prefix in (f"file://{tmp_path}/a b/step ", f"file://{tmp_path}/a%20b/step%20"):
        (found,) = Storage().list(prefix)
        assert found.uri == f"{prefix}1.jsonl"
        assert Storage().read(found.uri) == b"x"


def test_a_list_looks_only_into_folders_whose_names_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("images/deep/1.png", "x.jsonl.resume/a/1.json"):
        Storage().write(b"", str(tmp_path / name))
    scan, scanned = os.scandir, []

    def noted(folder: Path) -> Any:
        scanned.append(folder.name)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", noted)
    assert [info.uri for info in Storage().list(f"{tmp_path}/x.jsonl.")] == [f"{tmp_path}/x.jsonl.resume/a/1.json"]
    assert scanned == [tmp_path.name, "x.jsonl.resume", "a"]


def test_a_file_that_may_not_be_read_is_access_denied(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "x").chmod(0)
    with not_root(), pytest.raises(AccessDenied, match="permission denied"):
        Storage().read(str(tmp_path / "x"))


@pytest.fixture(params=["with hard links", "without hard links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a file system that has no hard links, which this machine may not have."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "without hard links":
        monkeypatch.setattr(os, "link", refuse)


def winners(uri: str, only_if: Unchanged) -> list[str]:
    """Let eight writers write at the same time; return what those that were told of success have written."""
    together = threading.Barrier(8)

    def contend(number: int) -> bool:
        together.wait()
        try:
            Storage().write(f"writer {number}".encode(), uri, only_if)
        except ObjectChanged:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(contend, range(8)))
    return [f"writer {number}" for number in range(8) if won[number]]


def test_exactly_one_of_many_writers_to_a_free_place_wins(tmp_path: Path) -> None:
    for number in range(20):
        uri = str(tmp_path / f"{number}")
        (winner,) = winners(uri, Unchanged(None))
        assert Path(uri).read_text() == winner


def test_exactly_one_of_many_writers_that_replace_the_same_file_wins(tmp_path: Path) -> None:
    for number in range(20):
        uri = str(tmp_path / f"{number}")
        (winner,) = winners(uri, Unchanged(Storage().write(b"old", uri)))
        assert Path(uri).read_text() == winner
    assert len(list(tmp_path.iterdir())) == 20, "no lock and no half of a file is left"


@pytest.mark.usefixtures("links")
def test_another_file_that_comes_during_the_upload_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "step.jsonl")
    fsync: Callable[[int], None] = os.fsync

    def come_first(descriptor: int) -> None:
        Path(uri).write_bytes(b"another's")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", come_first)
    with pytest.raises(ObjectChanged, match="exists already"):
        Storage().write(b"mine", uri, Unchanged(None))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"step.jsonl": b"another's"}


@pytest.mark.usefixtures("links")
def test_a_free_place_is_written_with_and_without_hard_links(tmp_path: Path) -> None:
    Storage().write(b"mine", str(tmp_path / "x"), Unchanged(None))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"mine"}


def test_what_a_killed_upload_left_is_found_and_discarded(tmp_path: Path) -> None:
    mine = f".step.jsonl.{'0f' * 8}.partial"
    others = [f".step.jsonl.claim.{'0f' * 8}.partial", ".step.jsonl.notes.partial", "step.jsonl"]
    for name in (mine, *others):
        (tmp_path / name).write_bytes(b"half")
    uri = str(tmp_path / "step.jsonl")
    assert Storage().unfinished_uploads(uri) == [mine]
    assert Storage().discard_unfinished_uploads(uri) == 1
    assert Storage().unfinished_uploads(uri) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_an_upload_under_way_is_an_unfinished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "step.jsonl")
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(Storage().unfinished_uploads(uri)))
    Storage().write(b"x", uri)
    assert [len(unfinished) for unfinished in seen] == [1]


def test_an_upload_under_way_is_not_discarded(tmp_path: Path) -> None:
    uri = str(tmp_path / "step.jsonl")
    with Storage().create(uri) as out:
        out.write(b"mine")
        assert Storage().discard_unfinished_uploads(uri) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"step.jsonl": b"mine"}


def test_an_upload_that_is_discarded_before_it_tells_that_it_lives_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "step.jsonl")
    lock = fcntl.flock
    discarded: list[int] = []

    def discard_first(descriptor: int, operation: int) -> None:
        if not discarded:
            monkeypatch.setattr(fcntl, "flock", lock)
            discarded.append(Storage().discard_unfinished_uploads(uri))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", discard_first)
    Storage().write(b"mine", uri)
    assert discarded == [1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"step.jsonl": b"mine"}


def upload_it(large: Path, target: Path) -> None:
    Storage().upload(large, str(target))


def download_it(large: Path, target: Path) -> None:
    Storage().download(Storage().stat(str(large)), target)


@pytest.mark.parametrize("transfer", [upload_it, download_it])
def test_a_disk_that_is_full_is_named_and_keeps_nothing(tmp_path: Path, transfer: Callable[[Path, Path], None]) -> None:
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    (tmp_path / "out").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(StorageError, match=f"cannot write to {tmp_path}/out: .*; make room"):
            transfer(tmp_path / "large", tmp_path / "out" / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "out").iterdir()) == []
