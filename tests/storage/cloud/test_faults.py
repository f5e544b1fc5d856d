"""Google's store and Azure when they fail: tried again within bounded time, and then said in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from clip_operator.storage import AccessDenied, CloudAccess, ObjectChanged, ObjectInfo, Storage, StorageError, Unchanged
from tests.conftest import Cloud
from tests.faulty_store import Fault, FaultyStore, Kind, Request, faulty_store
from tests.storage.conftest import within

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * (5 << 12)  # two ranges
MUCH = 40 << 20  # more than what is written in one request

# A range of 4 MiB has a second and a quarter. Three tries take some tenths of a second more.
IMPATIENT = CloudAccess(timeout_seconds=1, least_bytes_per_second=16 << 20, max_tries=3, retry_seconds=30)


@pytest.fixture(params=["gs", "az"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    made: Cloud = request.getfixturevalue(request.param)
    return made


@contextmanager
def behind(cloud: Cloud, faults: Sequence[Fault], **hooks: object) -> Iterator[tuple[Storage, FaultyStore]]:
    """Give a storage that reaches the store through a proxy that fails so."""
    with pytest.MonkeyPatch.context() as patch, faulty_store(cloud.running.url, faults, **hooks) as proxy:  # type: ignore[arg-type]
        cloud.reached_at(proxy.url, patch)
        yield Storage(cloud_access=IMPATIENT), proxy


def is_publishing(request: Request) -> bool:
    """Whether the request makes an object appear."""
    is_complete = request.method == "POST" and "uploadId" in request.query
    return is_complete or (request.method == "PUT" and request.query.get("comp", "blocklist") == "blocklist")


PASSING = [Kind.SLOW_DOWN, Kind.INTERNAL_ERROR, Kind.RESET, Kind.STALLED, Kind.TRUNCATED, Kind.EMPTIED, Kind.TRICKLE]


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_is_outlasted(cloud: Cloud, tmp_path: Path, kind: Kind) -> None:
    uri = f"{cloud.root}/x"
    written = cloud.storage.write(CONTENT, uri)
    for action in (
        lambda storage: storage.read(uri) == CONTENT,
        lambda storage: storage.stat(uri) == written,
        lambda storage: list(storage.list(f"{cloud.root}/")) == [written],
        lambda storage: storage.download(written, tmp_path / "x") is None,
    ):
        with behind(cloud, [Fault(kind, times=1)]) as (storage, _):
            assert within(60, lambda action=action, storage=storage: action(storage))  # type: ignore[misc]
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Kind.SLOW_DOWN, r"kept failing \(503\) through 3 tries; it is overloaded or out of order"),
        (Kind.RESET, "the connection to .* broke or stalled, or was too slow, and again at every retry"),
        (Kind.STALLED, "the connection to .* broke or stalled"),
        (Kind.TRUNCATED, "the connection to .* broke or stalled"),
        (Kind.TRICKLE, "the connection to .* broke or stalled"),
    ],
)
def test_a_fault_that_lasts_ends_in_words(cloud: Cloud, kind: Kind, told: str) -> None:
    uri = f"{cloud.root}/x"
    cloud.storage.write(CONTENT, uri)
    with behind(cloud, [Fault(kind)]) as (storage, proxy):
        with pytest.raises(StorageError, match=told):
            within(60, lambda: storage.read(uri))
        assert len(proxy.requests) <= 12


def test_nothing_that_listens_is_said_with_the_address(cloud: Cloud) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cloud.reached_at("http://127.0.0.1:1", patch)
        with pytest.raises(StorageError, match=r"cannot connect to http://127\.0\.0\.1:1.*; check the address"):
            Storage(cloud_access=IMPATIENT).stat(f"{cloud.root}/x")


@pytest.mark.parametrize("key", ["x", "Error performing token request: status code: 401 <Code>NoSuchBucket<Code>"])
def test_a_denied_object_is_told_from_refused_credentials(cloud: Cloud, key: str) -> None:
    cloud.storage.write(b"x", f"{cloud.root}/{key}")
    with behind(cloud, [Fault(Kind.ACCESS_DENIED)]) as (storage, _):
        for action in (storage.stat, storage.read):
            with pytest.raises(AccessDenied, match=r"access denied by http://127.*check the credentials and what they"):
                action(f"{cloud.root}/{key}")


@pytest.mark.parametrize("kind", [Kind.ANSWER_LOST, Kind.RESET, Kind.INTERNAL_ERROR])
@pytest.mark.parametrize("size", [100, MUCH], ids=["in one request", "in parts"])
@pytest.mark.parametrize("replacing", [False, True], ids=["where nothing was", "where something was"])
def test_an_object_whose_publishing_meets_a_fault_is_there_once_and_whole(
    cloud: Cloud, kind: Kind, size: int, replacing: bool
) -> None:
    uri = f"{cloud.root}/x"
    only_if = Unchanged(cloud.storage.write(b"old", uri) if replacing else None)
    with behind(cloud, [Fault(kind, when=is_publishing, times=1)]) as (storage, proxy):
        told = storage.write(bytes(size), uri, only_if)
        assert any(request.fault for request in proxy.requests)
    assert told == cloud.storage.stat(uri)
    assert cloud.storage.read(uri) == bytes(size)


def test_another_that_comes_right_before_the_write_is_kept(cloud: Cloud) -> None:
    uri = f"{cloud.root}/x"
    seen = cloud.storage.write(b"old", uri)
    others: list[ObjectInfo] = []

    def come_first(request: Request) -> None:
        if is_publishing(request) and not others:
            with pytest.MonkeyPatch.context() as patch:
                cloud.reached_at(cloud.running.url, patch)
                others.append(Storage().write(b"another's", uri))

    with behind(cloud, [], before=come_first) as (storage, _), pytest.raises(ObjectChanged, match="was replaced"):
        storage.write(b"mine", uri, Unchanged(seen))
    assert cloud.storage.stat(uri) == others[0]
    assert cloud.storage.read(uri) == b"another's"


def test_a_version_is_read_whole_or_not_at_all_where_the_store_ignores_the_condition(gs: Cloud, tmp_path: Path) -> None:
    uri = f"{gs.root}/x"
    seen = gs.storage.write(CONTENT, uri)
    gs.storage.write(CONTENT[::-1], uri)

    def forget(request: Request) -> None:
        del request.headers["If-Match"]  # as a store that does not know it

    with behind(gs, [], before=forget) as (storage, _), pytest.raises(ObjectChanged, match="changed while"):
        storage.download(seen, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_version_that_is_replaced_while_it_is_read_is_read_anew(cloud: Cloud) -> None:
    uri = f"{cloud.root}/x"
    cloud.storage.write(CONTENT, uri)
    replaced: list[ObjectInfo] = []

    def replace(request: Request) -> None:
        if request.method == "GET" and not replaced:
            with pytest.MonkeyPatch.context() as patch:
                cloud.reached_at(cloud.running.url, patch)
                replaced.append(Storage().write(CONTENT[::-1], uri))

    with behind(cloud, [], after=replace) as (storage, _):
        info, data = storage.read_version(uri)
    assert (info, data) == (replaced[0], CONTENT[::-1])
