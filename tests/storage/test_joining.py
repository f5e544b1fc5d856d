"""Objects are written as their bytes come, and joined from others: whole and right, or not there."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clip_operator.storage import ObjectChanged, ObjectInfo, S3Access, Storage, StorageError, Unchanged
from clip_operator.storage.s3.concatenate import Part, plan_parts
from clip_operator.storage.s3.parts import next_part_bytes
from tests.conftest import S3
from tests.faulty_store import Fault, FaultyStore, Kind, Request, faulty_store
from tests.storage.conftest import Place

MIB = 1 << 20
CONTENT = random.Random(7).randbytes(18 * MIB)


def storage_behind(proxy: FaultyStore, s3: S3) -> Storage:
    session = s3.storage.s3_access.session
    return Storage(S3Access(session, proxy.url, timeout_seconds=20))


def is_copying(request: Request) -> bool:
    return "x-amz-copy-source" in request.headers


def is_completing(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def written(storage: Storage, root: str, *sizes: int) -> tuple[list[ObjectInfo], bytes]:
    """Write objects of these sizes, each with bytes of its own; return them and all their bytes."""
    contents = [random.Random(f"{number} {size}").randbytes(size) for number, size in enumerate(sizes)]
    infos = [storage.write(content, f"{root}/source {number}") for number, content in enumerate(contents)]
    return infos, b"".join(contents)


def names(place: Place) -> list[str]:
    return [info.uri.rpartition("/")[2] for info in place.storage.list(place.root + "/")]


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, len(CONTENT)])
def test_what_is_written_piece_by_piece_becomes_the_object(place: Place, size: int) -> None:
    chance = random.Random(size)
    with place.storage.create(place.uri("x")) as out:
        position = 0
        while position < size:
            piece = CONTENT[position : min(size, position + chance.choice([1, 1000, 70_000, 3 * MIB]))]
            assert out.write(piece) == len(piece)
            position += len(piece)
            assert out.tell() == position
        assert place.storage.find(place.uri("x")) is None, "before the end there is nothing to be seen"
    assert out.info == place.storage.stat(place.uri("x"))
    assert place.storage.read(place.uri("x")) == CONTENT[:size]
    assert place.storage.unfinished_uploads(place.uri("x")) == []


@pytest.mark.parametrize("size", [100, len(CONTENT)])
def test_a_write_that_is_given_up_leaves_what_was_there(place: Place, size: int) -> None:
    place.storage.write(b"old", place.uri("x"))

    def give_up() -> None:
        with place.storage.create(place.uri("x")) as out:
            out.write(CONTENT[:size])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert place.storage.read(place.uri("x")) == b"old"
    assert place.storage.unfinished_uploads(place.uri("x")) == []


def test_a_library_that_closes_the_file_does_not_publish_it(place: Place) -> None:
    with place.storage.create(place.uri("x")) as out:
        out.write(b"all of it")
        out.close()
        assert place.storage.find(place.uri("x")) is None
    assert place.storage.read(place.uri("x")) == b"all of it"


def test_a_condition_that_does_not_hold_stops_a_write_before_it_begins(place: Place) -> None:
    place.storage.write(b"old", place.uri("x"))
    with pytest.raises(ObjectChanged, match="exists already"), place.storage.create(place.uri("x"), Unchanged(None)):
        pytest.fail("must not begin")
    with pytest.raises(ObjectChanged, match="exists already"):
        place.storage.concatenate([], place.uri("x"), Unchanged(None))
    assert names(place) == ["x"]


@pytest.mark.parametrize("kind", [Kind.ANSWER_LOST, Kind.INTERNAL_ERROR])
@pytest.mark.parametrize("size", [100, len(CONTENT)])
def test_a_stream_whose_publishing_meets_a_fault_is_there_once_and_whole(
    s3: S3, kind: Kind, size: int, no_pauses: list[float]
) -> None:
    uri = f"s3://{s3.bucket}/x"
    fault = Fault(kind, when=lambda r: is_completing(r) or (r.method == "PUT" and not r.query), times=1)
    with faulty_store(s3.store.endpoint_url, [fault]) as proxy:
        with storage_behind(proxy, s3).create(uri, Unchanged(None)) as out:
            out.write(CONTENT[:size])
        assert out.info == s3.storage.stat(uri)
    assert s3.get(uri) == CONTENT[:size]


def test_a_part_that_cannot_be_sent_fails_the_write_and_leaves_no_parts(s3: S3, no_pauses: list[float]) -> None:
    uri = f"s3://{s3.bucket}/x"
    fault = Fault(Kind.INTERNAL_ERROR, when=lambda request: request.query.get("partNumber") == "1")
    with (
        faulty_store(s3.store.endpoint_url, [fault]) as proxy,
        pytest.raises(StorageError, match="kept failing"),
        storage_behind(proxy, s3).create(uri) as out,
    ):
        out.write(CONTENT)
    assert s3.storage.unfinished_uploads(uri) == []
    assert s3.object_keys() == []


def test_ten_thousand_parts_of_a_stream_reach_the_largest_object_that_s3_has() -> None:
    sent = 0
    for _ in range(10_000):
        part = next_part_bytes(sent)
        assert 8 * MIB <= part <= 5 << 30
        sent += part
    assert sent >= 5 << 40


# Not through fsspec: it has no conditional writes, so the later one would win.
@pytest.mark.parametrize("place", ["path", "file", "s3"], indirect=True)
def test_exactly_one_of_two_streams_that_end_together_is_published(place: Place) -> None:
    together = threading.Barrier(2)

    def contend(letter: bytes) -> bytes:
        try:
            with place.storage.create(place.uri("x"), Unchanged(None)) as out:
                out.write(letter * 9 * MIB)
                together.wait()
        except ObjectChanged:
            return b""
        return letter

    with ThreadPoolExecutor(2) as threads:
        winner = b"".join(threads.map(contend, [b"a", b"b"]))
    assert len(winner) == 1
    assert place.storage.read(place.uri("x")) == winner * 9 * MIB


@pytest.mark.parametrize("seed", range(2))
def test_a_concatenation_has_all_the_bytes_in_their_order(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    sizes = [
        chance.choice([0, 1, 1000, MIB, 5 * MIB - 1, 5 * MIB, 6 * MIB, 11 * MIB]) for _ in range(chance.randrange(2, 9))
    ]
    sources, content = written(place.storage, place.root, *sizes)
    told = place.storage.concatenate(sources, place.uri("all"))
    assert told == place.storage.stat(place.uri("all"))
    assert place.storage.read(place.uri("all")) == content, sizes
    assert place.storage.unfinished_uploads(place.uri("all")) == []


def test_no_sources_and_empty_sources_make_an_empty_object(place: Place) -> None:
    assert place.storage.concatenate([], place.uri("none")).size == 0
    sources, _ = written(place.storage, place.root, 0, 0)
    place.storage.concatenate(sources, place.uri("empty"))
    assert place.storage.read(place.uri("empty")) == b""


def test_a_source_may_be_joined_twice(place: Place) -> None:
    (source,), content = written(place.storage, place.root, 6 * MIB)
    place.storage.concatenate([source, source], place.uri("all"))
    assert place.storage.read(place.uri("all")) == content * 2


def test_sources_of_different_stores_and_buckets_are_joined(s3: S3, tmp_path: Path) -> None:
    s3.client.create_bucket(Bucket="another-bucket")
    here, first = written(s3.storage, f"s3://{s3.bucket}", 6 * MIB, 10)
    there, second = written(s3.storage, "s3://another-bucket", 20, 6 * MIB)
    local, third = written(s3.storage, str(tmp_path), 30, 2 * MIB)
    uri = f"s3://{s3.bucket}/all"
    try:
        s3.storage.concatenate([*here, *there], uri)
        assert s3.get(uri) == first + second
        s3.storage.concatenate([*here, *there, *local], uri)
        assert s3.get(uri) == first + second + third
    finally:
        s3.storage.delete_folder("s3://another-bucket/")
        s3.client.delete_bucket(Bucket="another-bucket")


def test_large_sources_in_one_bucket_are_copied_by_the_server(s3: S3) -> None:
    sources, content = written(s3.storage, f"s3://{s3.bucket}", 6 * MIB, 100, 11 * MIB, 12 * MIB)
    with faulty_store(s3.store.endpoint_url) as proxy:
        storage_behind(proxy, s3).concatenate(sources, f"s3://{s3.bucket}/all")
        read = sum(int(r.headers["Range"].partition("-")[2]) + 1 for r in proxy.requests if r.method == "GET")
        assert sum(map(is_copying, proxy.requests)) == 3
    assert read <= 100 + 5 * MIB, "the small one and what makes a part of it"
    assert s3.get(f"s3://{s3.bucket}/all") == content


def test_a_server_that_cannot_copy_parts_is_sent_them(s3: S3) -> None:
    sources, content = written(s3.storage, f"s3://{s3.bucket}", 6 * MIB, 100, 7 * MIB)

    def not_implemented(request: Request) -> Kind | None:
        return Kind.CHECKSUM_REFUSED if is_copying(request) else None  # 501 NotImplemented

    with faulty_store(s3.store.endpoint_url, not_implemented) as proxy:
        storage_behind(proxy, s3).concatenate(sources, f"s3://{s3.bucket}/all")
    assert s3.get(f"s3://{s3.bucket}/all") == content
    assert s3.storage.unfinished_uploads(f"s3://{s3.bucket}/all") == []


@pytest.mark.parametrize(
    ("kind", "when"),
    [
        (Kind.SLOW_DOWN, is_copying),
        (Kind.ANSWER_LOST, is_copying),
        (Kind.SLOW_DOWN, lambda request: request.query.get("partNumber") == "2"),
        (Kind.TRUNCATED, lambda request: request.method == "GET"),
        (Kind.WRONG_ETAG, lambda request: request.method == "GET"),
        (Kind.ANSWER_LOST, is_completing),
        (Kind.NO_SUCH_KEY, is_copying),
    ],
)
def test_a_fault_in_the_middle_of_a_concatenation_is_outlasted(
    s3: S3, kind: Kind, when: Callable[[Request], bool], no_pauses: list[float]
) -> None:
    sources, content = written(s3.storage, f"s3://{s3.bucket}", 6 * MIB, 100, 7 * MIB)
    uri = f"s3://{s3.bucket}/all"
    with faulty_store(
        s3.store.endpoint_url, [Fault(kind, when=when, times=2 if kind is not Kind.ANSWER_LOST else 1)]
    ) as proxy:
        told = storage_behind(proxy, s3).concatenate(sources, uri, Unchanged(None))
        assert any(request.fault for request in proxy.requests)
    assert told == s3.storage.stat(uri)
    assert s3.get(uri) == content


@pytest.mark.parametrize("number", [0, 1, 2], ids=["copied", "read", "empty"])
def test_a_source_that_was_replaced_is_not_joined(place: Place, number: int) -> None:
    sources, _ = written(place.storage, place.root, 6 * MIB, 100, 0)
    place.storage.write(b"another", sources[number].uri)
    with pytest.raises(ObjectChanged, match=f"source {number}|source%20{number}"):
        place.storage.concatenate(sources, place.uri("all"))
    assert place.storage.find(place.uri("all")) is None
    assert place.storage.unfinished_uploads(place.uri("all")) == []


def test_a_source_that_is_replaced_in_the_middle_is_noticed(s3: S3) -> None:
    sources, _ = written(s3.storage, f"s3://{s3.bucket}", 6 * MIB, 7 * MIB)

    def replace(request: Request) -> None:
        if is_copying(request):
            s3.client.put_object(Bucket=s3.bucket, Key="source 1", Body=CONTENT[: 7 * MIB])

    with faulty_store(s3.store.endpoint_url, before=replace) as proxy, pytest.raises(ObjectChanged, match="source 1"):
        storage_behind(proxy, s3).concatenate(sources, f"s3://{s3.bucket}/all")
    assert "all" not in s3.object_keys()


def test_another_object_that_comes_during_a_concatenation_is_kept(s3: S3) -> None:
    sources, _ = written(s3.storage, f"s3://{s3.bucket}", 6 * MIB, 7 * MIB)
    uri = f"s3://{s3.bucket}/all"

    def come_first(request: Request) -> None:
        if is_completing(request):
            s3.put("all", b"another's")

    with faulty_store(s3.store.endpoint_url, before=come_first) as proxy, pytest.raises(ObjectChanged):
        storage_behind(proxy, s3).concatenate(sources, uri, Unchanged(None))
    assert s3.get(uri) == b"another's"
    assert s3.storage.unfinished_uploads(uri) == []


def of_sizes(*sizes: int) -> list[ObjectInfo]:
    return [ObjectInfo(f"s3://b/{number}", size, "e") for number, size in enumerate(sizes)]


def check(sources: list[ObjectInfo], parts: list[Part]) -> None:
    """The parts are within S3's limits and have all the bytes in their order."""
    assert 0 < len(parts) <= 10_000
    assert all(part.length >= 5 * MIB for part in parts[:-1])
    assert all(part.length <= 5 << 30 for part in parts)
    position = iter([some for part in parts for some in part.ranges])
    for source in sources:
        done = 0
        while done < source.size:
            some = next(position)
            assert (some.source, some.start) == (source, done)
            done += some.length
    assert next(position, None) is None


@pytest.mark.parametrize(
    ("sources", "copied_bytes"),
    [
        (of_sizes(12 << 30), 12 << 30),
        (of_sizes(*[1000] * 10_000), 0),
        (of_sizes(*[6 * MIB] * 9_999), 9_999 * 6 * MIB),
        (of_sizes(*[6 * MIB] * 30_000), None),
        (of_sizes(1, 40 << 30, 1, 1 << 40, 3), None),
        (of_sizes(5 * MIB - 1, 5 * MIB, 5 * MIB), None),
        (of_sizes(*[size for number in range(6_000) for size in (1, 11 * MIB)]), None),
        (of_sizes(5 << 40), 5 << 40),
    ],
)
def test_parts_are_within_the_limits_of_s3(sources: list[ObjectInfo], copied_bytes: int | None) -> None:
    parts = plan_parts(sources, "b")
    check(sources, parts)
    if copied_bytes is not None:
        assert sum(part.length for part in parts if part.copied) == copied_bytes
    if sum(source.size for source in sources) < 1 << 40:
        check(sources, sent := plan_parts(sources, None))
        assert not any(part.copied for part in sent)


@contextmanager
def peak_bytes() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_stream_is_not_held_in_memory(s3: S3) -> None:
    some: Any = memoryview(CONTENT)[:MIB]
    with peak_bytes() as peak:
        with s3.storage.create(f"s3://{s3.bucket}/x") as out:
            for _ in range(96):
                out.write(some)
        assert peak() < 64 * MIB
    assert out.info.size == 96 * MIB
