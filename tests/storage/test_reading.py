"""Objects are opened as files: any seek and read gives the bytes of exactly one version, by fitting requests."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.storage import ObjectChanged, ObjectInfo, S3Access, Storage
from tests.conftest import S3
from tests.faulty_store import Fault, FaultyStore, Kind, faulty_store
from tests.storage.conftest import Place

CONTENT = random.Random(7).randbytes(21_000_001)  # several ranges ahead of the reader, the last one short


def storage_behind(proxy: FaultyStore, s3: S3) -> Storage:
    session = s3.storage.s3_access.session
    return Storage(S3Access(session, proxy.url, timeout_seconds=20))


def ranges(proxy: FaultyStore) -> list[tuple[int, int]]:
    """Return the ranges that were asked for: first byte, length."""
    asked = [request.headers["Range"].removeprefix("bytes=").split("-") for request in proxy.requests]
    return [(int(first), int(last) - int(first) + 1) for first, last in asked]


def test_random_seeks_and_reads_give_what_a_file_in_memory_gives(place: Place) -> None:
    info = place.storage.write(CONTENT, place.uri("x"))
    chance = random.Random(place.kind)
    reference = io.BytesIO(CONTENT)
    with place.storage.open(info) as file:
        for _ in range(150):
            whence = chance.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
            target = chance.choice([chance.randrange(len(CONTENT) + 100), reference.tell(), len(CONTENT) - 8])
            offset = target - {os.SEEK_SET: 0, os.SEEK_CUR: reference.tell(), os.SEEK_END: len(CONTENT)}[whence]
            assert file.seek(offset, whence) == reference.seek(offset, whence)
            length = chance.choice([0, 1, 100, 70_000, 5_000_000 if chance.random() < 0.2 else 10])
            assert file.read(length) == reference.read(length)
            assert file.tell() == reference.tell()
        file.seek(1)
        assert file.read() == CONTENT[1:]
        assert file.read() == b""


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537])
def test_a_file_is_read_to_its_end_whatever_its_size(place: Place, size: int) -> None:
    info = place.storage.write(CONTENT[:size], place.uri("x"))
    with place.storage.open(info) as file:
        assert file.read() == CONTENT[:size]


def test_gzip_tar_and_parquet_readers_take_the_open_file(place: Place) -> None:
    table = pa.table({"n": list(range(5000)), "text": [f"row {number}" for number in range(5000)]})
    parquet = io.BytesIO()
    pq.write_table(table, parquet, row_group_size=1000)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as writing:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = 4
            writing.addfile(member, io.BytesIO(b"abcd"))
    opened = {
        name: place.storage.open(place.storage.write(data, place.uri(name)))
        for name, data in (("p", parquet.getvalue()), ("t", tar.getvalue()), ("g", gzip.compress(b"line\n" * 9999)))
    }
    assert pq.ParquetFile(pa.PythonFile(opened["p"], mode="r")).read().equals(table)
    with tarfile.open(fileobj=opened["t"]) as reading:
        assert reading.getnames() == ["0.txt", "1.txt", "2.txt"]
    with gzip.open(opened["g"]) as lines:
        assert sum(1 for _ in lines) == 9999
    for file in opened.values():
        file.close()


def test_a_footer_is_read_without_the_bytes_before_it(s3: S3) -> None:
    s3.put("x", CONTENT)
    with faulty_store(s3.store.endpoint_url) as proxy:
        info = s3.storage.stat(f"s3://{s3.bucket}/x")
        with storage_behind(proxy, s3).open(info) as file:
            file.seek(-8, os.SEEK_END)
            file.read(8)
            file.seek(-4096, os.SEEK_END)
            file.read(4000)
        assert sum(length for _, length in ranges(proxy)) < 256 << 10


def test_what_is_read_on_and_on_comes_in_large_ranges_and_each_byte_once(s3: S3) -> None:
    s3.put("x", CONTENT)
    with faulty_store(s3.store.endpoint_url) as proxy:
        with storage_behind(proxy, s3).open(s3.storage.stat(f"s3://{s3.bucket}/x")) as file:
            while file.read(10_000):
                pass
        asked = sorted(ranges(proxy))
    assert len(asked) < 14
    assert max(length for _, length in asked) <= 4 << 20
    assert sum(length for _, length in asked) == len(CONTENT)


def test_a_large_read_in_the_middle_fetches_no_more_than_it_returns(s3: S3) -> None:
    s3.put("x", CONTENT)
    with faulty_store(s3.store.endpoint_url) as proxy:
        with storage_behind(proxy, s3).open(s3.storage.stat(f"s3://{s3.bucket}/x")) as file:
            file.seek(1_000_000)
            assert file.read(10 << 20) == CONTENT[1_000_000 : 1_000_000 + (10 << 20)]
        assert sum(length for _, length in ranges(proxy)) <= (10 << 20) + (128 << 10)


@pytest.mark.parametrize("kind", [Kind.TRUNCATED, Kind.EMPTIED, Kind.SLOW_DOWN, Kind.WRONG_ETAG, Kind.RESET])
def test_a_fault_in_the_middle_of_reading_is_outlasted(s3: S3, kind: Kind, no_pauses: list[float]) -> None:
    s3.put("x", CONTENT[: 6 << 20])
    fault = Fault(kind, when=lambda request: request.method == "GET", skip=2, times=2)
    with (
        faulty_store(s3.store.endpoint_url, [fault]) as proxy,
        storage_behind(proxy, s3).open(s3.storage.stat(f"s3://{s3.bucket}/x")) as file,
    ):
        assert b"".join(iter(lambda: file.read(100_000), b"")) == CONTENT[: 6 << 20]


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(place: Place, tmp_path: Path) -> None:
    info = place.storage.write(CONTENT, place.uri("x"))
    with place.storage.open(info) as file:
        assert file.read(10) == CONTENT[:10]
        if place.kind in ("path", "file"):  # one that is renamed into its place would leave this one as it was
            (tmp_path / "some folder" / "x").write_bytes(CONTENT[::-1])
        else:
            place.storage.write(CONTENT[::-1], place.uri("x"))
        file.seek(15_000_000)
        with pytest.raises(ObjectChanged, match="changed while it was being read"):
            file.read(10)


@pytest.mark.parametrize("size", [0, 100])
def test_a_version_that_is_gone_is_not_opened_or_not_read(place: Place, size: int) -> None:
    seen = place.storage.write(bytes(size), place.uri("x"))
    place.storage.write(b"another", place.uri("x"))

    def read() -> None:
        with place.storage.open(seen) as file:
            file.read()

    with pytest.raises(ObjectChanged):
        read()


def test_ranges_fill_a_file_at_their_places(place: Place, local: Path) -> None:
    info = place.storage.write(CONTENT, place.uri("x"))
    target = local / "copy"
    half = len(CONTENT) // 2
    place.storage.download_range(info, half, len(CONTENT) - half, target, at=half)
    place.storage.download_range(info, 0, half, target)
    assert target.read_bytes() == CONTENT
    place.storage.download_range(info, 5, 3, target, at=100)
    place.storage.download_range(info, 7, 0, target)
    assert target.read_bytes() == CONTENT[:100] + CONTENT[5:8] + CONTENT[103:]


def test_a_range_past_the_end_is_refused(place: Place, local: Path) -> None:
    info = place.storage.write(b"12345", place.uri("x"))
    with pytest.raises(ValueError, match="has 5 bytes, not those from 3 to 6"):
        place.storage.download_range(info, 3, 3, local / "copy")


@pytest.mark.parametrize("length", [0, 10])
def test_a_range_of_a_version_that_is_gone_is_not_copied(place: Place, local: Path, length: int) -> None:
    seen = place.storage.write(bytes(20), place.uri("x"))
    place.storage.write(b"another", place.uri("x"))
    with pytest.raises(ObjectChanged):
        place.storage.download_range(seen, 0, length, local / "copy")


def test_an_object_is_read_with_its_version_and_in_s3_in_one_request(place: Place, s3: S3) -> None:
    written = place.storage.write(b"content", place.uri("x"))
    assert place.storage.read_version(place.uri("x"), max_bytes=7) == (written, b"content")
    s3.put("x", b"content")
    with faulty_store(s3.store.endpoint_url) as proxy:
        info, _ = storage_behind(proxy, s3).read_version(f"s3://{s3.bucket}/x")
        assert len(proxy.requests) == 1
    assert info == s3.storage.stat(f"s3://{s3.bucket}/x")


@pytest.mark.parametrize("look", [Storage.stat, lambda storage, uri: next(storage.list(uri))], ids=["stat", "list"])
def test_an_object_tells_when_it_was_written(place: Place, look: Callable[[Storage, str], ObjectInfo]) -> None:
    place.storage.write(b"x", place.uri("x"))
    place.storage.write(b"y", place.uri("y"))
    first, second = (look(place.storage, place.uri(name)).modified for name in "xy")
    assert first is not None
    assert second is not None
    assert first.tzinfo is not None
    assert 0 <= (second - first).total_seconds() < 60
