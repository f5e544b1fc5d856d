"""Whatever breaks on the way to S3 ends in the right bytes or in words, and in bounded time."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clip_operator.storage import (
    AccessDenied,
    CredentialsError,
    ObjectChanged,
    ObjectNotFound,
    Storage,
    StorageError,
)
from tests.conftest import S3
from tests.faulty_store import Fault, FaultyStore, Kind, Request, faulty_store
from tests.storage.conftest import within

SMALL = hashlib.shake_256(b"seed").digest(20_000)
LARGE = hashlib.shake_256(b"seed").digest(9 << 20)  # two parts

PATIENCE_SECONDS = 20  # where the store is not slow on purpose, it may be because the machine is busy
IMPATIENCE_SECONDS = 0.3

PASSING = [
    Kind.SLOW_DOWN,
    Kind.INTERNAL_ERROR,
    Kind.RESET,
    Kind.ANSWER_LOST,
    Kind.STALLED,
    Kind.TRUNCATED,
    Kind.EMPTIED,
    Kind.TRICKLE,
    Kind.WRONG_ETAG,
    Kind.CONDITION_REFUSED,
]
SLOW = (Kind.STALLED, Kind.TRICKLE)
LASTING = {
    Kind.ACCESS_DENIED: AccessDenied,
    Kind.NO_SUCH_KEY: ObjectNotFound,
    Kind.CLOCK_SKEWED: CredentialsError,
    Kind.EXPIRED_TOKEN: CredentialsError,
}


class World:
    """A bucket with two objects, seen through the proxy."""

    def __init__(self, s3: S3, proxy: FaultyStore, folder: Path, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        access = dataclasses.replace(s3.storage.s3_access, endpoint_url=proxy.url, timeout_seconds=timeout_seconds)
        self.storage = Storage(access)
        self.s3 = s3
        self.proxy = proxy
        self.folder = folder

    def uri(self, key: str) -> str:
        return f"s3://{self.s3.bucket}/{key}"

    def download(self, key: str, content: bytes) -> None:
        self.storage.download(self.s3.storage.stat(self.uri(key)), self.folder / "copy")
        assert (self.folder / "copy").read_bytes() == content

    def upload(self, content: bytes) -> None:
        self.s3.client.delete_object(Bucket=self.s3.bucket, Key="new")
        (self.folder / "new").write_bytes(content)
        told = self.storage.upload(self.folder / "new", self.uri("new"))
        assert told == self.s3.storage.stat(self.uri("new"))
        assert self.s3.get(self.uri("new")) == content

    def write(self) -> None:
        self.s3.client.delete_object(Bucket=self.s3.bucket, Key="new")
        assert self.storage.write(SMALL, self.uri("new")) == self.s3.storage.stat(self.uri("new"))
        assert self.s3.get(self.uri("new")) == SMALL

    def stat(self) -> None:
        assert self.storage.stat(self.uri("small")).size == len(SMALL)

    def read(self) -> None:
        assert self.storage.read(self.uri("small")) == SMALL

    def read_range(self) -> None:
        assert self.storage.read_range(self.uri("small"), -100, 50) == SMALL[-100:-50]

    def delete(self) -> None:
        self.s3.put("gone", b"")
        self.storage.delete(self.uri("gone"))
        assert "gone" not in self.s3.object_keys()

    def list(self) -> None:
        assert [info.uri for info in self.storage.list(self.uri("s"))] == [self.uri("small")]

    def discard(self) -> None:
        self.s3.client.create_multipart_upload(Bucket=self.s3.bucket, Key="new")
        assert self.storage.discard_unfinished_uploads(self.uri("new")) == 1
        assert self.s3.storage.unfinished_uploads(self.uri("new")) == []


ACTIONS: dict[str, Callable[[World], None]] = {
    "stat": World.stat,
    "read": World.read,
    "read_range": World.read_range,
    "list": World.list,
    "delete": World.delete,
    "discard_unfinished_uploads": World.discard,
    "download, small": lambda world: world.download("small", SMALL),
    "download, large": lambda world: world.download("large", LARGE),
    "write": World.write,
    "upload, small": lambda world: world.upload(SMALL),
    "upload, large": lambda world: world.upload(LARGE),
}
Open = Callable[..., Any]


@contextmanager
def naming(action: str) -> Iterator[None]:
    """Let a failure say what the storage was asked."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        error.add_note(f"the storage was asked to {action}")
        raise


@pytest.fixture
def opened(s3: S3, tmp_path: Path, no_pauses: list[float]) -> Open:
    s3.put("small", SMALL)
    s3.put("large", LARGE)

    @contextmanager
    def opened(
        faults: Sequence[Fault] | Callable[[Request], Kind | None] = (),
        timeout_seconds: float = PATIENCE_SECONDS,
        **more: Any,
    ) -> Iterator[World]:
        with faulty_store(s3.store.endpoint_url, faults, **more) as proxy:
            yield World(s3, proxy, tmp_path, timeout_seconds)

    return opened


each_of = partial(pytest.mark.parametrize, "kind", ids=lambda kind: kind.name)


@each_of(PASSING)
def test_a_fault_that_passes_is_outlasted_whatever_the_storage_was_asked(opened: Open, kind: Kind) -> None:
    times, patience = (1, IMPATIENCE_SECONDS) if kind in SLOW else (3, PATIENCE_SECONDS)
    for name, act in ACTIONS.items():
        with opened([Fault(kind, times=times)], timeout_seconds=patience) as world, naming(name):
            within(30, partial(act, world))


@each_of(LASTING)
def test_a_refusal_is_named_whatever_the_storage_was_asked(opened: Open, kind: Kind) -> None:
    told = {
        Kind.ACCESS_DENIED: "write in the bucket '{bucket}'",
        Kind.NO_SUCH_KEY: "does not exist",
        Kind.CLOCK_SKEWED: "this machine's clock differs too much",
        Kind.EXPIRED_TOKEN: "the S3 credentials have expired.*work done so far is kept",
    }
    for name, act in ACTIONS.items():
        if kind is Kind.NO_SUCH_KEY and name in ("delete", "discard_unfinished_uploads"):
            continue  # what is gone already need not be deleted
        with opened([Fault(kind)]) as world, naming(name):
            with pytest.raises(StorageError, match=told[kind].format(bucket=world.s3.bucket)) as caught:
                within(30, partial(act, world))
            assert type(caught.value) is LASTING[kind]
            assert str(caught.value).startswith(f"s3://{world.s3.bucket}/")


@each_of([Kind.SLOW_DOWN, Kind.INTERNAL_ERROR, Kind.RESET, Kind.STALLED])
def test_a_fault_that_does_not_pass_ends_in_words_with_the_number_of_tries(opened: Open, kind: Kind) -> None:
    for name in ("read", "list", "upload, large") if kind in SLOW else ACTIONS:
        with opened([Fault(kind)], timeout_seconds=0.1) as world, naming(name):  # nothing comes, however long it waits
            with pytest.raises(StorageError, match=r"\b8 tries") as caught:
                within(60, partial(ACTIONS[name], world))
            assert type(caught.value) is StorageError


def test_an_upload_that_an_old_store_refuses_names_the_setting_and_nothing_else_is_refused(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = ("write", "upload, small", "upload, large")
    with opened([Fault(Kind.CHECKSUM_REFUSED)]) as world:
        for name, act in ACTIONS.items():
            if name in uploads:
                with naming(name), pytest.raises(StorageError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
                    act(world)
            else:
                act(world)
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        world = World(world.s3, world.proxy, world.folder)
        for name in uploads:
            ACTIONS[name](world)


@pytest.mark.parametrize("seed", range(3))
def test_everything_goes_well_where_one_request_in_five_does_not(opened: Open, seed: int) -> None:
    faults = [Fault(kind, rate=0.2 / 6) for kind in PASSING]  # six of them can befall any request
    with opened(faults, seed=seed, timeout_seconds=0.6) as world:
        for _ in range(3):
            for name, act in ACTIONS.items():
                with naming(name):
                    within(60, partial(act, world))
        befallen = Counter(request.fault for request in world.proxy.requests)
    assert befallen.total() - befallen[None] > befallen.total() / 10
    assert len(befallen) > 4


def test_a_burst_of_failures_in_many_threads_does_not_use_up_the_tries_of_each(opened: Open) -> None:
    # 16 threads with 5 failures each are more than botocore's quota of retries, which all threads share.
    asked: Counter[str] = Counter()

    def decide(request: Request) -> Kind | None:
        asked[request.identity] += 1
        return Kind.INTERNAL_ERROR if request.method in ("GET", "PUT") and asked[request.identity] <= 5 else None

    with opened(decide) as world:
        uris = [world.uri(f"burst/{number}") for number in range(16)]
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda uri: world.storage.write(uri.encode(), uri), uris))
            read = list(threads.map(world.storage.read, uris))
    assert read == [uri.encode() for uri in uris]


def test_a_body_that_trickles_for_ever_ends_in_words(opened: Open) -> None:
    with opened([Fault(Kind.TRICKLE)], timeout_seconds=IMPATIENCE_SECONDS) as world:
        for action in (World.read, World.list, ACTIONS["download, large"]):
            with pytest.raises(StorageError, match=r"(broke or stalled|kept failing).*\b8 tries.*only \d+ bytes"):
                within(60, partial(action, world))
        assert list(world.folder.iterdir()) == [], "no half of a file"


@pytest.mark.parametrize("key", ["small", "large"])
def test_an_object_that_changes_during_its_download_is_an_error(opened: Open, key: str) -> None:
    gets = itertools.count()  # the parts of a large object are asked for at once, in whatever order
    patience = 60  # the change may take its time: a part that is asked for again in the meantime is still the old one

    def change(request: Request) -> None:
        if request.method == "GET" and next(gets) == 0:
            world.s3.put(key, {"small": SMALL, "large": LARGE}[key][::-1])

    with opened(before=change, timeout_seconds=patience) as world:
        message = f"s3://{world.s3.bucket}/{key} changed while it was being read; run the task again"
        with pytest.raises(ObjectChanged, match=message):
            world.download(key, b"")
        assert list(world.folder.iterdir()) == []


def test_an_object_that_is_deleted_during_its_download_is_said_to_be_gone(opened: Open) -> None:
    def delete(request: Request) -> None:
        world.s3.client.delete_object(Bucket=world.s3.bucket, Key=request.key)

    with opened(before=delete) as world, pytest.raises(ObjectNotFound, match="small does not exist"):
        world.download("small", SMALL)


def test_a_precondition_that_fails_only_on_the_way_is_not_believed(opened: Open) -> None:
    changed = Fault(Kind.NO_SUCH_KEY, when=lambda request: request.method == "GET", times=2)
    with opened([changed]) as world:
        world.download("large", LARGE)


def test_the_bytes_past_the_limit_are_not_fetched(opened: Open) -> None:
    truncated = Fault(Kind.TRUNCATED)  # half a body would be tried again, if it were read
    with opened([truncated]) as world, pytest.raises(StorageError, match="more than the 10 accepted"):
        world.storage.read(world.uri("small"), max_bytes=10)
    assert len(world.proxy.requests) == 1


def test_a_download_to_a_disk_that_is_full_names_the_folder(opened: Open) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened() as world:
        info = world.s3.storage.stat(world.uri("large"))
        target = world.folder / "deep" / "copy"
        target.parent.mkdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
        try:
            with pytest.raises(StorageError, match=f"cannot write to {target.parent}: .*; make room there, or let"):
                world.storage.download(info, target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(target.parent.iterdir()) == []
