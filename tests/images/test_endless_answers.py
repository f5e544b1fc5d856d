"""However a web host spins its answer out, an image has an end: what is promised holds whatever is being read."""

from __future__ import annotations

import os
import random
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImageLocation, ImagePolicy
from clip_operator.machine.connections import MAX_HEAD_BYTES
from clip_operator.storage import Storage
from tests.certificates import write_certificate
from tests.images.conftest import Refusal, WebServer, status
from tests.images.pictures import drawn, encoded
from tests.raw_server import PAUSE_SECONDS, Answer, for_ever, heard, one_by_one, raw_server, saying, wait_until_left
from tests.storage.conftest import within

FILE = encoded(drawn())
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
RIGHT = OK + b"Content-Length: %d\r\n\r\n%s" % (len(FILE), FILE)

SILENT_SECONDS = 0.05
WHOLE = "was not complete after 0.5 seconds"  # ten times that
FAR_TOO_LONG = 30

ENDLESS: dict[str, Answer] = {
    "100 Continue": saying(then=for_ever(CONTINUE)),
    "headers of 100 Continue": saying(b"HTTP/1.1 100 Continue\r\n", then=for_ever(b"X: y\r\n")),
    "status line": saying(b"HTTP/1.1 200 ", then=for_ever(b"O")),
    "no protocol": saying(then=for_ever(b"\0")),
    "header": saying(OK, b"X: ", then=for_ever(b"y")),
    "headers": saying(OK, then=for_ever(b"X: y\r\n")),
    "trailer": saying(CHUNKED + b"3\r\nabc\r\n0\r\n", then=for_ever(b"X: y\r\n")),
    "trailer, never silent": saying(CHUNKED + b"0\r\n", then=for_ever(b"X: y\r\n" * 1000), pause_seconds=0),
    "line of a trailer": saying(CHUNKED + b"0\r\nX: ", then=for_ever(b"y")),
    "extension of a chunk": saying(CHUNKED + b"3;", then=for_ever(b"x")),
    "size of a chunk": saying(CHUNKED, then=for_ever(b"0")),
    "chunk": saying(CHUNKED + b"ffffffff\r\n", then=for_ever(b"x")),
    "chunks": saying(CHUNKED, then=for_ever(b"1\r\nx\r\n")),
    "body": saying(OK + b"Content-Length: 1000000\r\n\r\n", then=for_ever(b"x")),
    "body without a length": saying(OK + b"\r\n", then=for_ever(b"x")),
    "slow redirects": saying(b"HTTP/1.1 302 Found\r\n", then=one_by_one(b"Location: /y\r\nContent-Length: 0\r\n\r\n")),
}


def loader_for(*hosts: str, seconds: float = SILENT_SECONDS, **limits: Any) -> ImageLoader:
    return ImageLoader(Storage(), ImagePolicy(".", image_hosts=hosts, http_timeout_seconds=seconds, **limits))


def fetch(loader: ImageLoader, url: str) -> bytes:
    """Fetch an image, and fail if that has no end."""
    return within(FAR_TOO_LONG, partial(loader.fetch, ImageLocation(url)))


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_end_is_given_up_at_the_limit_of_an_image(kind: str, refused: Refusal) -> None:
    with raw_server(ENDLESS[kind]) as server:
        assert (
            WHOLE in refused(Reason.IMAGE_UNAVAILABLE, fetch, loader_for(server.host), f"http://{server.host}/x").detail
        )
        assert server.is_left_by_all(FAR_TOO_LONG), "a connection is kept on which an answer has no end"


@pytest.mark.parametrize("head", [b"X: %s\r\n" % (b"y" * 60_000), CONTINUE * 1000], ids=["headers", "100 Continue"])
def test_what_precedes_a_body_has_a_bounded_size(
    head: bytes, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", [].append)  # between the tries
    start = b"" if head.startswith(b"HTTP") else OK
    answer = saying(start, then=for_ever(head), pause_seconds=0)
    with raw_server(answer) as server:
        loader = loader_for(server.host, seconds=FAR_TOO_LONG)
        error = refused(Reason.IMAGE_UNAVAILABLE, fetch, loader, f"http://{server.host}/x")
        assert "ProtocolError, at every try" in error.detail


def test_headers_may_be_long(refused: Refusal) -> None:
    long = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 60_000) for number in range(MAX_HEAD_BYTES // 60_100 - 1))
    with raw_server(saying(OK + long + RIGHT.removeprefix(OK), pause_seconds=0)) as server:
        assert fetch(loader_for(server.host, seconds=FAR_TOO_LONG), f"http://{server.host}/x") == FILE


def test_a_host_whose_answers_have_no_end_is_given_up(refused: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("clip_operator.images.dead_hosts.monotonic", lambda: clock[0])
    with raw_server(ENDLESS["100 Continue"]) as server:
        loader = loader_for(server.host)

        def fail(number: int) -> str:
            return refused(Reason.IMAGE_UNAVAILABLE, fetch, loader, f"http://{server.host}/{number}").detail

        assert WHOLE in fail(0)
        clock[0] += 31
        with ThreadPoolExecutor(15) as threads:
            assert all(WHOLE in detail for detail in threads.map(fail, range(1, 16)))
        assert "stopped answering" in fail(16)


def test_the_next_image_of_a_host_comes_on_another_connection(refused: Refusal) -> None:
    has_no_end = threading.Event()

    def answer(connection: socket.socket, closing: threading.Event) -> None:
        while heard(connection):
            if not has_no_end.is_set():
                connection.sendall(RIGHT)
                continue
            connection.sendall(b"HTTP/1.1 200 ")
            while not closing.wait(PAUSE_SECONDS):
                connection.sendall(b"O")

    with raw_server(answer) as server:
        loader, url = loader_for(server.host, seconds=0.1), f"http://{server.host}/x"
        assert fetch(loader, url) == FILE
        has_no_end.set()
        assert "was not complete after 1 seconds" in refused(Reason.IMAGE_UNAVAILABLE, fetch, loader, url).detail
        assert server.is_left_by_all(FAR_TOO_LONG)
        has_no_end.clear()
        assert fetch(loader, url) == FILE


def test_a_connection_that_went_stale_is_given_up_for_another(refused: Refusal) -> None:
    def fall_silent(connection: socket.socket, closing: threading.Event) -> None:
        heard(connection)
        connection.sendall(RIGHT)
        wait_until_left(connection)

    with raw_server(fall_silent, afterwards=saying(RIGHT)) as server:
        loader, url = loader_for(server.host, seconds=0.3), f"http://{server.host}/x"
        assert [fetch(loader, url) for _ in range(2)] == [FILE] * 2
        assert server.connections == 2
        assert server.is_left_by_all(FAR_TOO_LONG)


def test_a_request_that_nobody_reads_is_given_up(refused: Refusal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        host = f"127.0.0.1:{deaf.getsockname()[1]}"
        refused(Reason.IMAGE_UNAVAILABLE, fetch, loader_for(host), f"http://{host}/x?{'y' * (16 << 20)}")


def test_a_body_that_stops_short_of_its_length_is_given_up(refused: Refusal) -> None:
    def stop_short(connection: socket.socket, closing: threading.Event) -> None:
        heard(connection)
        connection.sendall(RIGHT[:-1])
        wait_until_left(connection)

    with raw_server(stop_short) as server:
        refused(Reason.IMAGE_UNAVAILABLE, fetch, loader_for(server.host), f"http://{server.host}/x")
        assert server.is_left_by_all(FAR_TOO_LONG)


def test_a_pause_that_a_host_asks_for_ends_at_the_limit_of_an_image(web: WebServer, refused: Refusal) -> None:
    web.answers["/x"] = status(503, Retry_After="20")
    assert WHOLE in refused(Reason.IMAGE_UNAVAILABLE, fetch, loader_for(web.host), f"{web.url}/x").detail


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that this process trusts."""
    file = tmp_path / "certificate.pem"
    write_certificate(file, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("kind", ["100 Continue", "status line", "headers", "trailer, never silent", "chunks", "body"])
def test_an_answer_without_end_is_given_up_over_tls_too(tls: ssl.SSLContext, kind: str, refused: Refusal) -> None:
    def secured(connection: socket.socket, closing: threading.Event) -> None:
        with tls.wrap_socket(connection, server_side=True) as secure:
            ENDLESS[kind](secure, closing)

    with raw_server(secured) as server:
        loader, url = loader_for(server.host, seconds=0.1), f"https://{server.host}/x"
        assert "was not complete after 1 seconds" in refused(Reason.IMAGE_UNAVAILABLE, fetch, loader, url).detail
        assert server.is_left_by_all(FAR_TOO_LONG)


def test_a_tls_record_that_trickles_is_given_up(tls: ssl.SSLContext, refused: Refusal) -> None:
    def trickle(connection: socket.socket, closing: threading.Event) -> None:
        with tls.wrap_socket(connection, server_side=True) as secure:
            heard(secure)
            bare = socket.socket(fileno=secure.detach())
        with bare:
            for piece in [b"\x17\x03\x03\x40\x00", *[b"x"] * 0x4000]:  # the head of a record says how long it is
                bare.sendall(piece)
                if closing.wait(PAUSE_SECONDS):
                    return

    with raw_server(trickle) as server:
        refused(Reason.IMAGE_UNAVAILABLE, fetch, loader_for(server.host, seconds=0.1), f"https://{server.host}/x")
        assert server.is_left_by_all(FAR_TOO_LONG)


def test_a_tls_handshake_that_trickles_is_given_up(refused: Refusal) -> None:
    def trickle(connection: socket.socket, closing: threading.Event) -> None:
        for piece in [b"\x16\x03\x03\x40\x00", b"\x02\x00\x3f\xfc", *[b"x"] * 0x3FFC]:
            connection.sendall(piece)
            if closing.wait(PAUSE_SECONDS):
                return

    with raw_server(trickle) as server:
        refused(Reason.IMAGE_UNAVAILABLE, fetch, loader_for(server.host), f"https://{server.host}/x")
        assert server.is_left_by_all(FAR_TOO_LONG)


def test_name_servers_that_never_answer_end_an_image_and_leave_few_threads(
    monkeypatch: pytest.MonkeyPatch, refused: Refusal
) -> None:
    answering = threading.Event()
    asked: list[str] = []

    def silent(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        answering.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", silent)
    before = set(threading.enumerate())
    loader = loader_for("*.example.org")
    try:
        for _ in range(2):
            error = refused(Reason.IMAGE_UNAVAILABLE, fetch, loader, "http://a.example.org/x")
            assert WHOLE in error.detail
        assert asked == ["a.example.org"]
    finally:
        answering.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(FAR_TOO_LONG)
        assert not thread.is_alive()


def test_no_more_names_are_asked_for_at_one_time_than_threads_may_wait(
    monkeypatch: pytest.MonkeyPatch, refused: Refusal
) -> None:
    answering = threading.Event()
    asked: SimpleQueue[str] = SimpleQueue()

    def silent(host: str, *_: Any, **__: Any) -> Any:
        asked.put(host)
        answering.wait()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", silent)
    loader = loader_for("*.example.org")
    try:
        with ThreadPoolExecutor(100) as threads:
            urls = (f"http://{number}.example.org/x" for number in range(100))
            errors = list(threads.map(lambda url: refused(Reason.IMAGE_UNAVAILABLE, fetch, loader, url), urls))
        assert all(WHOLE in error.detail for error in errors)
        assert len({asked.get(timeout=FAR_TOO_LONG) for _ in range(64)}) == 64
        assert asked.empty()
    finally:
        answering.set()
    assert "does not resolve" in refused(Reason.IMAGE_UNAVAILABLE, fetch, loader, "http://later.example.org/x").detail


RIGHT_ANSWERS = [
    RIGHT,
    CONTINUE * 3 + RIGHT,
    OK + b"\r\n" + FILE,
    CHUNKED + b"10;name=value\r\n%s\r\n%x\r\n%s\r\n0;x\r\nX: y\r\nZ: \r\n\r\n" % (FILE[:16], len(FILE) - 16, FILE[16:]),
]


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("right", RIGHT_ANSWERS, ids=["length", "100 Continue", "until it closes", "chunked"])
def test_a_right_answer_is_read_wherever_it_is_split(right: bytes, seed: int) -> None:
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(right)) for _ in range(chance.randrange(20)))
    pieces = [right[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(right)], strict=True)]
    with raw_server(saying(*pieces, pause_seconds=0.001)) as server:
        assert fetch(loader_for(server.host, seconds=FAR_TOO_LONG), f"http://{server.host}/x") == FILE
