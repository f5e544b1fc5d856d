"""Conditional writes to S3: one of several writers wins, and a lost answer is not taken for a lost race."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSRequest

from clip_operator.storage import ObjectChanged, ObjectInfo, S3Access, Storage, StorageError, Unchanged
from tests.conftest import S3
from tests.faulty_store import Fault, FaultyStore, Kind, Request, faulty_store

LARGE = bytes(range(256)) * (9 << 12)  # two parts
NOTHING = Unchanged(None)
CONDITIONS = ("If-None-Match", "If-Match")


def storage_behind(proxy: FaultyStore, s3: S3) -> Storage:
    session = s3.storage.s3_access.session
    return Storage(S3Access(session, proxy.url, timeout_seconds=20))


def large_file(folder: Path) -> Path:
    (folder / "large").write_bytes(LARGE)
    return folder / "large"


def write(storage: Storage, size: str, uri: str, only_if: Unchanged | None, folder: Path) -> ObjectInfo:
    """Write something small in one request, or something large in parts."""
    if size == "large":
        return storage.upload(large_file(folder), uri, only_if)
    return storage.write(b"mine", uri, only_if)


def is_publishing(request: Request) -> bool:
    """Whether the request makes an object appear."""
    return (request.method == "PUT" and "partNumber" not in request.query) or (
        request.method == "POST" and "uploads" not in request.query
    )


@pytest.mark.parametrize("replacing", [False, True], ids=["where nothing was", "where something was"])
def test_exactly_one_of_many_writers_at_the_same_time_wins(s3: S3, replacing: bool) -> None:
    uri = f"s3://{s3.bucket}/x"
    only_if = Unchanged(s3.storage.write(b"old", uri) if replacing else None)
    writers = 8
    together = threading.Barrier(writers)
    storages = [storage_behind(FaultyStore(s3.store.endpoint_url), s3) for _ in range(writers)]

    def contend(number: int) -> ObjectInfo | None:
        storages[number].find(uri)  # the connection stands before the race begins
        together.wait()
        try:
            return storages[number].write(f"writer {number}".encode(), uri, only_if)
        except ObjectChanged:
            return None

    with ThreadPoolExecutor(writers) as threads:
        told = list(threads.map(contend, range(writers)))

    winners = [number for number, info in enumerate(told) if info is not None]
    assert len(winners) == 1
    assert s3.get(uri) == f"writer {winners[0]}".encode()
    assert told[winners[0]] == s3.storage.stat(uri)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("replacing", [False, True], ids=["where nothing was", "where something was"])
def test_another_writer_that_comes_during_the_upload_keeps_its_object(
    s3: S3, tmp_path: Path, size: str, replacing: bool
) -> None:
    uri = f"s3://{s3.bucket}/x"
    only_if = Unchanged(s3.storage.write(b"old", uri) if replacing else None)

    def come_first(request: Request) -> None:
        if is_publishing(request):
            s3.put("x", b"another's")

    with faulty_store(s3.store.endpoint_url, before=come_first) as proxy:
        storage = storage_behind(proxy, s3)
        with pytest.raises(ObjectChanged, match=f"{uri} (exists already|was replaced)"):
            write(storage, size, uri, only_if, tmp_path)
    assert s3.get(uri) == b"another's"
    assert s3.storage.unfinished_uploads(uri) == []


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("replacing", [False, True], ids=["where nothing was", "where something was"])
def test_a_write_whose_answer_was_lost_is_recognised_as_done(
    s3: S3, tmp_path: Path, size: str, replacing: bool
) -> None:
    uri = f"s3://{s3.bucket}/x"
    only_if = Unchanged(s3.storage.write(b"old", uri) if replacing else None)
    with faulty_store(s3.store.endpoint_url, [Fault(Kind.ANSWER_LOST, when=is_publishing, times=1)]) as proxy:
        storage = storage_behind(proxy, s3)
        told = write(storage, size, uri, only_if, tmp_path)
        statuses = [request.status for request in proxy.requests if is_publishing(request)]
    assert statuses == [None, 412], "the second try met the object of the first"
    assert told == s3.storage.stat(uri)
    assert s3.get(uri) == (LARGE if size == "large" else b"mine")


def test_a_lost_answer_and_another_writer_after_it_is_a_change(s3: S3) -> None:
    def come_second(request: Request) -> None:
        if is_publishing(request):
            s3.put("x", b"another's")

    uri = f"s3://{s3.bucket}/x"
    faults = [Fault(Kind.ANSWER_LOST, when=is_publishing, times=1)]
    with faulty_store(s3.store.endpoint_url, faults, after=come_second) as proxy, pytest.raises(ObjectChanged):
        storage_behind(proxy, s3).write(b"mine", uri, NOTHING)
    assert s3.get(uri) == b"another's"


REFUSES = {
    "what it does not know": Fault(Kind.CONDITION_REFUSED),
    "every condition": Fault(Kind.CONDITION_FAILED),
}


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("refusal", REFUSES.values(), ids=REFUSES)
def test_a_store_that_refuses_conditions_gets_the_write_without_after_another_look(
    s3: S3, tmp_path: Path, size: str, refusal: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    def come_first(request: Request) -> None:
        if is_publishing(request) and request.key == "y":
            s3.put("y", b"another's")

    uri = f"s3://{s3.bucket}/x"
    with faulty_store(s3.store.endpoint_url, [refusal], before=come_first) as proxy:
        with pytest.raises(ObjectChanged, match="exists already"):
            write(storage_behind(proxy, s3), size, f"s3://{s3.bucket}/y", NOTHING, tmp_path)
        storage = storage_behind(proxy, s3)
        first = write(storage, size, uri, NOTHING, tmp_path)
        for _ in range(2):
            assert write(storage, size, uri, Unchanged(first), tmp_path) == first == s3.storage.stat(uri)
        for only_if, told in ((NOTHING, "exists already"), (Unchanged(ObjectInfo(uri, 1, "0")), "was replaced")):
            with pytest.raises(ObjectChanged, match=told):
                write(storage, size, uri, only_if, tmp_path)
    assert s3.get(f"s3://{s3.bucket}/y") == b"another's"
    said = [record.getMessage() for record in caplog.records]
    assert [f"{proxy.url} does not keep to the condition {name} of" in "".join(said) for name in CONDITIONS] == [
        True,
        True,
    ]
    assert len(said) == 2, "once each"


def has_quotes(request: Request) -> bool:
    return '"' in request.headers.get("If-Match", "")


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_store_to_which_quotes_are_a_part_of_the_etag_is_told_it_without(
    s3: S3, tmp_path: Path, size: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As Ceph's gateway 16 has it. How it wants an ETag is found out once, and then two writers never both win."""

    def come_first(request: Request) -> None:
        if request.headers.get("If-Match") == told.etag and request.key == "y":
            s3.put("y", b"another's")

    told = s3.storage.write(b"old", f"s3://{s3.bucket}/y")
    uri = f"s3://{s3.bucket}/x"
    with faulty_store(
        s3.store.endpoint_url, [Fault(Kind.CONDITION_FAILED, when=has_quotes)], before=come_first
    ) as proxy:
        with pytest.raises(ObjectChanged, match="was replaced"):
            write(storage_behind(proxy, s3), size, told.uri, Unchanged(told), tmp_path)
        storage = storage_behind(proxy, s3)
        standing = storage.write(b"old", uri)
        for _ in range(2):
            standing = write(storage, size, uri, Unchanged(standing), tmp_path)
            assert standing == s3.storage.stat(uri)
        replacing = [request for request in proxy.requests if is_publishing(request) and request.key == "x"][1:]
    assert [(has_quotes(request), request.status) for request in replacing] == [
        (True, 412),
        (True, 412),
        (False, 412),  # of no object
        (False, 200),
        (False, 200),
    ]
    assert s3.get(told.uri) == b"another's"
    assert caplog.records == []


def test_a_store_that_takes_no_notice_of_an_etag_without_quotes_is_not_trusted_with_one(
    s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    def forget(request: AWSRequest, **_: Any) -> None:
        if '"' not in request.headers.get("If-Match", ""):
            del request.headers["If-Match"]

    session = boto3.session.Session(s3.store.access_key, s3.store.secret_key, region_name="us-east-1")
    session.events.register("before-sign.s3.PutObject", forget)
    uri = f"s3://{s3.bucket}/x"
    with faulty_store(s3.store.endpoint_url, [Fault(Kind.CONDITION_FAILED, when=has_quotes)]) as proxy:
        storage = Storage(S3Access(session, proxy.url))
        standing = storage.write(b"old", uri)
        for data in (b"new", b"newer"):
            standing = storage.write(data, uri, Unchanged(standing))
            assert s3.get(uri) == data
        with pytest.raises(ObjectChanged, match="was replaced"):
            storage.write(b"newest", uri, Unchanged(ObjectInfo(uri, 1, "0")))
    assert "does not keep to the condition If-Match of writes" in caplog.text


def test_a_refusal_by_another_writer_that_has_come_and_gone_changes_nothing(s3: S3) -> None:
    uri = f"s3://{s3.bucket}/x"
    with faulty_store(s3.store.endpoint_url, [Fault(Kind.CONDITION_FAILED, times=1)]) as proxy:
        storage = storage_behind(proxy, s3)
        standing = storage.write(b"new", uri, NOTHING)
        storage.write(b"newer", uri, Unchanged(standing))
        said = [request.headers for request in proxy.requests if is_publishing(request)]
    assert [(put.get("If-None-Match"), put.get("If-Match")) for put in said] == [
        ("*", None),
        ("*", None),
        (None, f'"{standing.etag}"'),
    ]


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_store_that_keeps_no_metadata_can_be_written_under_a_condition(s3: S3, tmp_path: Path, size: str) -> None:
    uri = f"s3://{s3.bucket}/x"
    with faulty_store(s3.store.endpoint_url, [Fault(Kind.METADATA_LOST)]) as proxy:
        storage = storage_behind(proxy, s3)
        told = write(storage, size, uri, NOTHING, tmp_path)
        assert write(storage, size, uri, Unchanged(told), tmp_path) == s3.storage.stat(uri)
        with pytest.raises(ObjectChanged, match="exists already"):
            write(storage, size, uri, NOTHING, tmp_path)


def test_a_writer_that_was_overwritten_at_once_is_told_where_it_had_a_condition(s3: S3) -> None:
    def come_second(request: Request) -> None:
        if is_publishing(request):
            s3.put("x", b"another's")

    uri = f"s3://{s3.bucket}/x"
    with faulty_store(s3.store.endpoint_url, after=come_second) as proxy:
        storage = storage_behind(proxy, s3)
        with pytest.raises(ObjectChanged, match="replaced by another writer at the same time"):
            storage.write(b"mine", uri, NOTHING)
        assert storage.write(b"mine", uri) != s3.storage.stat(uri), "its own version, which is gone"


@pytest.mark.parametrize(
    "lose",
    [
        lambda request: request.method == "PUT" and request.query.get("partNumber") == "2",
        lambda request: request.method == "POST" and "uploadId" in request.query,
    ],
    ids=["a part", "the completion"],
)
def test_a_large_upload_that_fails_leaves_no_parts_behind(
    s3: S3, tmp_path: Path, lose: Callable[[Request], bool], no_pauses: list[float]
) -> None:
    uri = f"s3://{s3.bucket}/x"
    begun: list[list[str]] = []

    def look(request: Request) -> None:
        if lose(request):
            begun.append(s3.storage.unfinished_uploads(uri))

    faults = [Fault(Kind.INTERNAL_ERROR, when=lose)]
    with (
        faulty_store(s3.store.endpoint_url, faults, before=look) as proxy,
        pytest.raises(StorageError, match="kept failing"),
    ):
        storage_behind(proxy, s3).upload(large_file(tmp_path), uri)
    assert len(begun[0]) == 1
    assert s3.storage.unfinished_uploads(uri) == []
    assert s3.object_keys() == []


def test_an_unfinished_upload_below_two_slashes_is_found_by_that_name(s3: S3) -> None:
    s3.client.create_multipart_upload(Bucket=s3.bucket, Key="out//a.jsonl")
    uri = f"s3://{s3.bucket}/out//a.jsonl"
    assert s3.storage.discard_unfinished_uploads(uri) == 1
    assert s3.storage.unfinished_uploads(uri) == s3.storage.unfinished_uploads(uri.replace("out//", "out/")) == []


def test_unfinished_uploads_are_those_to_exactly_this_uri(s3: S3) -> None:
    for key in ("a/x", "a/x", "a/x.claim", "a/", "b"):
        s3.client.create_multipart_upload(Bucket=s3.bucket, Key=key)
    uri = f"s3://{s3.bucket}/a/x"
    assert len(s3.storage.unfinished_uploads(uri)) == 2
    assert s3.storage.discard_unfinished_uploads(uri) == 2
    assert s3.storage.unfinished_uploads(uri) == []
    assert len(s3.storage.unfinished_uploads(uri + ".claim")) == 1
    for key in ("a/x.claim", "a/", "b"):
        assert s3.storage.discard_unfinished_uploads(f"s3://{s3.bucket}/{key}") == 1
