"""However a store spins an answer out, the request has an end, and is made again as after any other fault."""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from clip_operator.storage import Storage, StorageError
from tests.certificates import write_certificate
from tests.conftest import S3
from tests.raw_server import Answer, RawServer, for_ever, passing_on, raw_server, saying
from tests.storage.conftest import within

BODY = bytes(range(256)) * 100
OK = b"HTTP/1.1 200 OK\r\n"
PART = b"HTTP/1.1 206 Partial Content\r\n"
CHUNKED = PART + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n"
TIMEOUT_SECONDS = 0.3
FAR_TOO_LONG = 30

HEADS: dict[str, Answer] = {
    "100 Continue": saying(then=for_ever(CONTINUE + b"\r\n")),
    "100 Continue, never silent": saying(then=for_ever(CONTINUE + b"\r\n"), pause_seconds=0),
    "headers of 100 Continue": saying(CONTINUE, then=for_ever(b"X: y\r\n")),
    "headers of 100 Continue, never silent": saying(CONTINUE, then=for_ever(b"X: y\r\n" * 1000), pause_seconds=0),
    "half a 100 Continue": saying(CONTINUE),
    "half a header": saying(OK + b"ETag"),
    "status line": saying(b"HTTP/1.1 200 ", then=for_ever(b"O")),
    "status line, never silent": saying(b"HTTP/1.1 200 ", then=for_ever(b"O" * 1000), pause_seconds=0),
    "header": saying(OK + b"X: ", then=for_ever(b"y")),
    "headers": saying(OK, then=for_ever(b"X: y\r\n")),
}
BODIES: dict[str, Answer] = {
    "trailer": saying(CHUNKED + b"3\r\nabc\r\n0\r\n", then=for_ever(b"X: y\r\n")),
    "trailer, never silent": saying(CHUNKED + b"0\r\n", then=for_ever(b"X: y\r\n" * 1000), pause_seconds=0),
    "extension of a chunk": saying(CHUNKED + b"3;", then=for_ever(b"x")),
    "size of a chunk": saying(CHUNKED, then=for_ever(b"0")),
    "chunk": saying(CHUNKED + b"ffff\r\n", then=for_ever(b"x")),
    "chunks": saying(CHUNKED, then=for_ever(b"1\r\nx\r\n")),
    "body": saying(PART + b"Content-Length: 10000\r\n\r\n", then=for_ever(b"x")),
}


def storage_at(url: str, s3: S3, **more: Any) -> Storage:
    assert s3.storage.s3_access is not None
    return Storage(dataclasses.replace(s3.storage.s3_access, endpoint_url=url, timeout_seconds=TIMEOUT_SECONDS, **more))


def stat(storage: Storage, s3: S3) -> None:
    assert storage.stat(f"s3://{s3.bucket}/x").size == len(BODY)


def read(storage: Storage, s3: S3) -> None:
    assert storage.read_range(f"s3://{s3.bucket}/x", 100, 50) == BODY[100:150]


def write(storage: Storage, s3: S3) -> None:
    uri = f"s3://{s3.bucket}/new"
    storage.write(BODY, uri)
    assert s3.get(uri) == BODY


def check(server: RawServer, act: Callable[[Storage, S3], None], s3: S3) -> None:
    s3.put("x", BODY)
    within(FAR_TOO_LONG, partial(act, storage_at(f"http://{server.host}", s3), s3))
    assert server.connections > 1, "the fault was not met"


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("act", [stat, write])
def test_a_head_without_end_is_given_up_and_the_request_made_again(
    s3: S3, kind: str, act: Callable[[Storage, S3], None], no_pauses: list[float]
) -> None:
    store = s3.store.endpoint_url.removeprefix("http://")
    with raw_server(HEADS[kind], afterwards=passing_on(store)) as server:
        check(server, act, s3)


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_without_end_is_given_up_and_the_request_made_again(s3: S3, kind: str, no_pauses: list[float]) -> None:
    store = s3.store.endpoint_url.removeprefix("http://")
    with raw_server(BODIES[kind], afterwards=passing_on(store)) as server:
        check(server, read, s3)


def test_answers_that_never_end_end_in_words(s3: S3, no_pauses: list[float]) -> None:
    with raw_server(HEADS["100 Continue"]) as server:
        storage = storage_at(f"http://{server.host}", s3)
        with pytest.raises(StorageError, match=r"broke or stalled, and again at every retry, 8 tries in all"):
            within(FAR_TOO_LONG, partial(stat, storage, s3))
        assert server.connections == 8
        assert server.is_left_by_all(FAR_TOO_LONG)


def test_an_answer_without_end_is_given_up_over_tls_too(s3: S3, tmp_path: Path, no_pauses: list[float]) -> None:
    certificate = tmp_path / "certificate.pem"
    write_certificate(certificate, "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)

    def secured(connection: socket.socket, closing: threading.Event) -> None:
        with tls.wrap_socket(connection, server_side=True) as secure:
            HEADS["status line"](secure, closing)

    with raw_server(secured) as server:
        storage = storage_at(f"https://{server.host}", s3, verify=os.fspath(certificate))
        with pytest.raises(StorageError, match=r"broke or stalled.*8 tries"):
            within(FAR_TOO_LONG, partial(stat, storage, s3))


@pytest.mark.parametrize("kind", ["status line", "headers"])
def test_a_proxy_that_answers_without_end_is_given_up(s3: S3, kind: str, no_pauses: list[float]) -> None:
    with raw_server(HEADS[kind]) as server:
        config = Config(proxies={"https": f"http://{server.host}"}, retries={"total_max_attempts": 2})
        storage = storage_at("https://store.example.org", s3, config=config)
        with pytest.raises(StorageError, match=r"2 tries|cannot connect"):
            within(FAR_TOO_LONG, partial(stat, storage, s3))
        assert server.is_left_by_all(FAR_TOO_LONG)


def test_a_store_that_is_long_silent_is_waited_for_as_long_as_its_user_says(s3: S3) -> None:
    s3.put("x", BODY)
    store = s3.store.endpoint_url.removeprefix("http://")

    def late(connection: socket.socket, closing: threading.Event) -> None:
        closing.wait(3 * TIMEOUT_SECONDS)
        passing_on(store)(connection, closing)

    with raw_server(late) as server:
        stat(storage_at(f"http://{server.host}", s3, config=Config(read_timeout=FAR_TOO_LONG)), s3)
        assert server.connections == 1
