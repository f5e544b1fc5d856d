"""Whole objects are read through obstore, once, and through boto3 where that is not the same or does not go well."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from clip_operator.storage import (
    AccessDenied,
    CredentialsError,
    ObjectNotFound,
    ObjectTooLarge,
    S3Access,
    StorageError,
)
from clip_operator.storage.s3 import whole_reads
from tests.conftest import S3
from tests.faulty_store import Fault, FaultyStore, Kind, Request, faulty_store
from tests.images.conftest import WebServer, status
from tests.storage.s3.reading import (
    KEYS,
    by_obstore,
    client_of,
    clients,
    in_thread,
    reaching,
    read_twice,
    with_headers,
    with_time,
)

CONTENT = hashlib.shake_256(b"seed").digest(200_000)

Opened = Callable[..., AbstractContextManager[FaultyStore]]


@pytest.fixture
def opened(s3: S3, no_pauses: list[float]) -> Opened:
    return partial(faulty_store, s3.store.endpoint_url)


def test_the_first_object_of_a_bucket_is_read_by_boto3_and_the_others_by_obstore(s3: S3, opened: Opened) -> None:
    uris = [s3.put(f"images/{number}.jpg", CONTENT[:size]) for number, size in enumerate((9, 0, 20_000, 200_000))]
    with opened() as proxy:
        storage = reaching(s3.storage.s3_access, proxy)
        for uri in uris:
            info, data = in_thread(storage.read_version, uri)
            assert data == s3.get(uri)
            assert with_time(info) == with_time(s3.storage.stat(uri))
    assert clients(proxy) == ["boto3", "obstore", "obstore", "obstore"]


def test_the_main_thread_which_must_hear_signals_reads_by_boto3(s3: S3, opened: Opened) -> None:
    uri = s3.put("x", CONTENT)
    with opened() as proxy:
        storage = reaching(s3.storage.s3_access, proxy)
        assert [*read_twice(storage, uri), storage.read(uri), in_thread(storage.read, uri)] == [CONTENT] * 4
    assert clients(proxy) == ["boto3", "obstore", "boto3", "obstore"]


PLAIN = [
    "a b",
    "größe",
    "100%",
    "%2e%2e/x",
    "a%2Fb",
    "a+b&c=d?e#f;g@h,i:j!k'l(m)*~",
    "...",
    "a/.b",
    "a\\b",
    "e\u0301/\U0001f600",
]
ODD = ["/a", "a/", "a//b", "a/../b", "./a", "a/.", "..", "a\nb", "a\x7f"]


@pytest.mark.parametrize("key", PLAIN + ODD)
def test_each_key_is_asked_for_byte_for_byte_as_boto3_does(s3: S3, opened: Opened, key: str) -> None:
    for other in (key, key.strip("/").replace("//", "/")):
        with suppress(ClientError):  # some of them no store accepts
            s3.put(other, other.encode())
    uri = f"s3://{s3.bucket}/{key}"
    with opened() as proxy:
        storage = reaching(s3.storage.s3_access, proxy)
        in_thread(storage.read, s3.put("first", b""))
        found = []
        for action in (partial(in_thread, storage.read, uri), partial(storage.read, uri)):
            try:
                found.append(action())
            except StorageError as error:
                found.append(str(error).encode())
    assert found[0] == found[1]
    if key in PLAIN:
        assert found[0] == key.encode()
    assert len({request.target for request in proxy.requests[1:]}) == 1
    assert client_of(proxy.requests[1]) == ("obstore" if key in PLAIN else "boto3")


@pytest.mark.parametrize(
    "kind",
    [
        Kind.SLOW_DOWN,
        Kind.INTERNAL_ERROR,
        Kind.RESET,
        Kind.ANSWER_LOST,
        Kind.TRUNCATED,
        Kind.EMPTIED,
        Kind.FLIPPED,
        Kind.WRONG_ETAG,
        Kind.ACCESS_DENIED,
        Kind.NO_SUCH_KEY,
        Kind.CLOCK_SKEWED,
        Kind.EXPIRED_TOKEN,
        Kind.STALLED,
        Kind.TRICKLE,
    ],
    ids=lambda kind: kind.name,
)
def test_what_befalls_obstore_alone_is_not_noticed(s3: S3, opened: Opened, kind: Kind) -> None:
    uri = s3.put("x", CONTENT)
    is_slow = kind in (Kind.STALLED, Kind.TRICKLE)  # the store may be, too, where the machine is busy
    with opened([Fault(kind, when=by_obstore, times=2)]) as proxy:
        storage = reaching(s3.storage.s3_access, proxy, timeout_seconds=0.3 if is_slow else 20)
        for _ in range(4):
            info, data = in_thread(storage.read_version, uri)
            assert data == CONTENT
            assert info == s3.storage.stat(uri)
    assert sum(request.fault is not None for request in proxy.requests) == 2
    assert is_slow or clients(proxy) == ["boto3", "obstore", "boto3", "obstore", "boto3", "obstore"]


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        (Kind.ACCESS_DENIED, AccessDenied, "access denied by"),
        (Kind.NO_SUCH_KEY, ObjectNotFound, "does not exist"),
        (Kind.EXPIRED_TOKEN, CredentialsError, "have expired.*renew themselves"),
        (Kind.SLOW_DOWN, StorageError, r"kept failing \(SlowDown\) through 8 tries"),
        (Kind.RESET, StorageError, "broke or stalled.*8 tries in all"),
        (Kind.STALLED, StorageError, "broke or stalled.*8 tries in all"),
        (Kind.TRICKLE, StorageError, "broke or stalled.*8 tries in all.*only [0-9]+ bytes"),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else "",
)
def test_what_lasts_ends_in_boto3s_words(
    s3: S3, opened: Opened, kind: Kind, error: type[StorageError], told: str
) -> None:
    uri = s3.put("x", CONTENT)
    begun: list[bool] = []
    with opened([Fault(kind, when=lambda _: bool(begun))]) as proxy:
        patience = 0.3 if kind in (Kind.STALLED, Kind.TRICKLE) else 20
        storage = reaching(s3.storage.s3_access, proxy, timeout_seconds=patience)
        in_thread(storage.read, uri)
        begun.append(True)
        with pytest.raises(error, match=told) as caught:
            in_thread(storage.read, uri)
        assert type(caught.value) is error
    assert clients(proxy).count("obstore") == 1, "obstore makes no tries of its own"


def test_what_is_too_large_is_told_by_the_first_answer_and_not_fetched(s3: S3, opened: Opened) -> None:
    uri = s3.put("x", CONTENT)
    with opened([Fault(Kind.TRUNCATED, when=by_obstore)]) as proxy:
        storage = reaching(s3.storage.s3_access, proxy)
        in_thread(storage.read, uri, len(CONTENT))
        with pytest.raises(ObjectTooLarge, match=f"{uri} has 200,000 bytes, more than the 10 accepted"):
            in_thread(storage.read, uri, 10)
    assert clients(proxy) == ["boto3", "obstore"]


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": ""},
        {"ETag": "\xff\xfe"},
        {"Last_Modified": "yesterday"},
        {"Content_Length": "7"},
        {"Content_Length": "-5"},
        {"Content_Encoding": "aws-chunked"},
        {"Content_Encoding": "gzip"},
        {"Last_Modified": "Thu, 01 Jan 1970 00:00:00 GMT"},
    ],
    ids=str,
)
def test_an_answer_with_odd_headers_is_what_it_is_to_boto3(
    web: WebServer, simple: FaultyStore, headers: dict[str, str]
) -> None:
    web.answers["/bucket/x"] = with_headers(b"hello", **headers)
    found = []
    for name in ("first", "x"):
        once = Config(retries={"total_max_attempts": 1})
        storage = reaching(S3Access(KEYS), simple, timeout_seconds=0.5, config=once)
        try:
            in_thread(storage.read, f"s3://bucket/{name}")  # where it is "first", obstore comes after it
            found.append(repr(in_thread(storage.read, "s3://bucket/x")))
        except Exception as error:
            found.append(re.sub(r"0x\w+", "", f"{type(error)} {error}"))
    assert found[0] == found[1]


def test_obstore_follows_no_redirect_to_another_host(web: WebServer, simple: FaultyStore) -> None:
    other = WebServer()
    try:
        other.answers["/secret"] = with_headers(b"secret")
        web.answers["/bucket/x"] = status(307, Location=f"http://localhost:{other.port}/secret")
        storage = reaching(S3Access(KEYS), simple, timeout_seconds=5)
        assert in_thread(storage.read, "s3://bucket/first") == b"first"
        with pytest.raises(StorageError):
            in_thread(storage.read, "s3://bucket/x")
        assert clients(simple)[:2] == ["boto3", "obstore"]
        assert not other.calls
    finally:
        other.close()


def test_where_obstore_always_fails_it_is_asked_only_now_and_then(
    s3: S3, opened: Opened, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_reads, "_REST", 20)
    uri = s3.put("x", CONTENT)
    broken = [True]

    def decide(request: Request) -> Kind | None:
        return Kind.ACCESS_DENIED if broken[0] and by_obstore(request) else None

    with opened(decide) as proxy:
        storage = reaching(s3.storage.s3_access, proxy)
        for _ in range(60):
            assert in_thread(storage.read, uri) == CONTENT
        asked = clients(proxy).count("obstore")
        assert asked == 8 + 2
        [warning] = [record.getMessage() for record in caplog.records if "obstore" in record.getMessage()]
        assert f"8 times in a row at what boto3 then read from the bucket '{s3.bucket}'" in warning
        assert "status code: 403 Forbidden. " in warning
        broken[0] = False
        for _ in range(40):
            in_thread(storage.read, uri)
    assert clients(proxy)[-15:] == ["obstore"] * 15, "it is trusted again"


def test_objects_that_are_missing_are_no_failures_of_obstores(
    s3: S3, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    uri = s3.put("x", CONTENT)
    with opened() as proxy:
        storage = reaching(s3.storage.s3_access, proxy)
        in_thread(storage.read, uri)
        for number in range(10):
            with pytest.raises(ObjectNotFound):
                in_thread(storage.read, f"{uri}{number}")
        in_thread(storage.read, uri)
    assert clients(proxy)[-1] == "obstore"
    assert not caplog.records


def test_the_log_holds_nothing_of_the_stores_answer(s3: S3, opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    """It may repeat what was signed, a session's token among it."""
    uri = s3.put("x", CONTENT)
    with opened([Fault(Kind.CLOCK_SKEWED, when=by_obstore)]) as proxy, caplog.at_level(logging.INFO):
        storage = reaching(s3.storage.s3_access, proxy)
        for _ in range(10):
            in_thread(storage.read, uri)
    assert "status code: 403" in caplog.text
    assert "RequestTimeTooSkewed" not in caplog.text
    assert "a fault was asked for" not in caplog.text


_FORKING = """
import os, sys, threading
from clip_operator.storage import S3Access, Storage

def read():
    found = []
    thread = threading.Thread(target=lambda: found.append(storage.read(sys.argv[1])))
    thread.start()
    thread.join(30)
    return found == [b"content"]

storage = Storage()
assert read() and read()
child = os.fork()
if child == 0:
    os._exit(0 if read() and read() else 1)
assert os.waitpid(child, 0)[1] == 0, "in the child"
assert read(), "in the parent"
"""


def test_a_process_that_is_forked_from_one_that_reads_can_read_and_so_can_its_parent(s3: S3, opened: Opened) -> None:
    uri = s3.put("x", b"content")
    with opened() as proxy:
        environment = {**os.environ, **s3.store.environment, "AWS_ENDPOINT_URL_S3": proxy.url}
        done = subprocess.run(
            [sys.executable, "-c", _FORKING, uri], env=environment, capture_output=True, text=True, timeout=100
        )
    assert done.returncode == 0, done.stderr
    assert clients(proxy) == ["boto3", "obstore", "boto3", "boto3", "obstore"]
