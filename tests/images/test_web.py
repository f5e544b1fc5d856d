"""Images from the web, from a real HTTP server on loopback."""

from __future__ import annotations

import gzip
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImageLocation, ImagePolicy
from clip_operator.storage import Storage
from tests.images.conftest import Answer, Refusal, WebServer, load, status
from tests.images.pictures import drawn, encoded, png
from tests.raw_server import raw_server, saying

FILE = encoded(drawn())


def loader_for(root: Path, *hosts: str, **limits: Any) -> ImageLoader:
    return ImageLoader(Storage(), ImagePolicy(root=str(root), image_hosts=hosts, **limits))


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the waiting between tries."""
    monkeypatch.setattr("urllib3.util.retry.time.sleep", [].append)


def redirect(target: str, code: int = 302) -> Answer:
    return status(code, b"moved", Location=target)


def in_turn(*answers: Answer) -> Answer:
    remaining = list(answers)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (remaining.pop(0) if len(remaining) > 1 else remaining[0])(handler)

    return answer


def chunked(*chunks: bytes, end: bool = True) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if end:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
    except OSError:
        handler.close_connection = True


def announcing(length: int, body: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        status(200, body, Content_Length=str(length))(handler)
        handler.close_connection = True

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def test_an_image_of_an_allowed_host_is_loaded(root: Path, web: WebServer) -> None:
    web.answers["/a%20b.png"] = status(200, FILE)
    loader = loader_for(root, web.host)
    for url in (f"{web.url}/a b.png", f"{web.url}/a%20b.png#top", f"{web.url}/a%20b.png?size=1"):
        assert load(loader, url).tobytes() == drawn().tobytes()


@pytest.mark.parametrize("hosts", [(), ("example.org",), ("127.0.0.1",), ("127.0.0.0/8",)])
def test_a_host_that_is_not_allowed_is_never_called(
    root: Path, web: WebServer, hosts: tuple[str, ...], refused: Refusal
) -> None:
    loader = loader_for(root, *hosts)
    refused(Reason.IMAGE_FORBIDDEN, load, loader, f"{web.url}/x.png")
    refused(Reason.IMAGE_FORBIDDEN, loader.fetch, ImageLocation(f"{web.url}/x.png"))
    assert not web.calls


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_within_the_image_hosts_are_followed(root: Path, web: WebServer, code: int) -> None:
    web.answers["/1"] = redirect("/2?q=1", code)
    web.answers["/2"] = redirect(f"{web.url}/3", code)
    web.answers["/3"] = status(200, FILE)
    assert loader_for(root, web.host).fetch(ImageLocation(f"{web.url}/1")) == FILE


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/x",
        "//localhost:{port}/x",
        "file:///etc/passwd",
        "s3://b/x",
        "http://u:p@127.0.0.1:{port}/x",
        "ftp://127.0.0.1/",
        "http://[x/y?secret",
        "//[",
    ],
)
def test_a_redirect_to_where_the_policy_does_not_lead_is_forbidden(
    root: Path, web: WebServer, target: str, refused: Refusal
) -> None:
    web.answers["/1"] = redirect(target.format(port=web.host.partition(":")[2]))
    web.answers["/x"] = status(200, FILE)
    refused(Reason.IMAGE_FORBIDDEN, load, loader_for(root, web.host), f"{web.url}/1")
    assert not web.calls["/x"]


def test_a_host_is_sent_no_credentials_and_no_cookies_and_no_proxy_is_asked(
    root: Path, web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = WebServer("127.0.0.2")
    elsewhere.anything_else = status(200, FILE)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, elsewhere.url)
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login somebody password hidden\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    sent: list[set[str]] = []

    def answer(then: Answer) -> Answer:
        def note(handler: BaseHTTPRequestHandler) -> None:
            sent.append({name.lower() for name in handler.headers})
            then(handler)

        return note

    web.answers["/1"] = answer(status(302, b"moved", Location="/2", Set_Cookie="who=you; Path=/"))
    web.answers["/2"] = answer(status(200, FILE, Set_Cookie="who=you; Path=/"))
    loader = loader_for(root, web.host)
    for _ in range(2):
        assert loader.fetch(ImageLocation(f"{web.url}/1")) == FILE
    assert sent == [{"host", "user-agent", "accept", "accept-encoding"}] * 4
    assert not elsewhere.calls
    elsewhere.close()


def test_five_redirects_are_followed_and_no_more(root: Path, web: WebServer, refused: Refusal) -> None:
    for hop in range(6):
        web.answers[f"/{hop}"] = redirect(f"/{hop + 1}")
    web.answers["/6"] = status(200, FILE)
    loader = loader_for(root, web.host)
    load(loader, f"{web.url}/1")
    refused(Reason.IMAGE_UNAVAILABLE, load, loader, f"{web.url}/0")


def test_a_chunked_answer_is_read_whole(root: Path, web: WebServer) -> None:
    web.answers["/x"] = chunked(FILE[:10], FILE[10:11], FILE[11:])
    assert load(loader_for(root, web.host), f"{web.url}/x").tobytes() == drawn().tobytes()


@pytest.mark.parametrize(
    "answer",
    [status(200, bytes(5001)), chunked(bytes(5000), b"x"), endless, announcing(10**12, bytes(5001))],
    ids=["announced", "chunked", "endless", "lying"],
)
def test_bytes_over_the_limit_are_not_read(root: Path, web: WebServer, answer: Answer, refused: Refusal) -> None:
    web.answers["/x"] = answer
    refused(Reason.IMAGE_TOO_LARGE, load, loader_for(root, web.host, max_bytes=5000), f"{web.url}/x")
    assert web.calls["/x"] == 1


def test_as_many_bytes_as_the_limit_are_fine(root: Path, web: WebServer) -> None:
    web.answers["/x"] = status(200, FILE)
    load(loader_for(root, web.host, max_bytes=len(FILE)), f"{web.url}/x")


def test_a_compressed_answer_is_not_inflated(root: Path, web: WebServer, refused: Refusal) -> None:
    web.answers["/x"] = status(200, gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")
    refused(Reason.IMAGE_UNREADABLE, load, loader_for(root, web.host, max_bytes=20_000), f"{web.url}/x")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (404, Reason.IMAGE_NOT_FOUND),
        (410, Reason.IMAGE_NOT_FOUND),
        (401, Reason.IMAGE_FORBIDDEN),
        (403, Reason.IMAGE_FORBIDDEN),
        (418, Reason.IMAGE_UNAVAILABLE),
        (204, Reason.IMAGE_UNAVAILABLE),
        (304, Reason.IMAGE_UNAVAILABLE),
    ],
)
def test_an_answer_that_will_not_change_is_final(
    root: Path, web: WebServer, code: int, reason: Reason, refused: Refusal
) -> None:
    web.answers["/x"] = status(code)
    refused(reason, load, loader_for(root, web.host), f"{web.url}/x")
    assert web.calls["/x"] == 1


@pytest.mark.parametrize(
    "trouble",
    [
        status(500, b"oops"),
        status(503, b"busy", Retry_After="0"),
        status(429, b"slow down", Retry_After="soon"),
        status(429, b"slow down", Retry_After="Mon, 1 Jan 99999 00:00:00 GMT"),
        status(429, b"slow down", Retry_After="9" * 5000),
        hang_up,
        announcing(len(FILE), FILE[:-5]),
        chunked(FILE[:-5], end=False),
    ],
    ids=["500", "503", "429", "429-never", "429-for-ever", "hung-up", "cut", "cut-chunked"],
)
def test_passing_trouble_is_tried_again(root: Path, web: WebServer, trouble: Answer) -> None:
    web.answers["/x"] = in_turn(trouble, status(200, FILE))
    assert load(loader_for(root, web.host), f"{web.url}/x").tobytes() == drawn().tobytes()
    assert web.calls["/x"] == 2


def test_retry_after_is_respected_and_bounded(root: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", slept.append)
    web.answers["/x"] = in_turn(status(503, Retry_After="7"), status(429, Retry_After="86400"), status(200, FILE))
    load(loader_for(root, web.host), f"{web.url}/x")
    assert slept == [7, 20]


def test_trouble_that_stays_makes_the_image_unavailable(
    root: Path, web: WebServer, no_pauses: None, refused: Refusal
) -> None:
    web.answers["/x"] = status(502)
    assert "502" in refused(Reason.IMAGE_UNAVAILABLE, load, loader_for(root, web.host), f"{web.url}/x").detail
    assert web.calls["/x"] == 4


def test_a_host_that_is_not_there_makes_the_image_unavailable(root: Path, no_pauses: None, refused: Refusal) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        refused(Reason.IMAGE_UNAVAILABLE, load, loader_for(root, host), f"http://{host}/x?signature=secret")
        refused(Reason.IMAGE_UNAVAILABLE, load, loader_for(root, host), f"https://{host}/x")


def test_a_server_that_speaks_no_tls_makes_the_image_unavailable(
    root: Path, web: WebServer, no_pauses: None, refused: Refusal
) -> None:
    refused(Reason.IMAGE_UNAVAILABLE, load, loader_for(root, web.host), f"https://{web.host}/x")


def test_a_silent_host_is_given_up(root: Path, web: WebServer, no_pauses: None, refused: Refusal) -> None:
    def say_nothing(handler: BaseHTTPRequestHandler) -> None:
        web.closing.wait(20)
        handler.close_connection = True

    web.answers["/x"] = say_nothing
    loader = loader_for(root, web.host, http_timeout_seconds=0.2)
    refused(Reason.IMAGE_UNAVAILABLE, load, loader, f"{web.url}/x")


def test_a_host_that_drips_is_given_up(root: Path, web: WebServer, refused: Refusal) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while not web.closing.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            handler.close_connection = True

    web.answers["/x"] = drip
    loader = loader_for(root, web.host, http_timeout_seconds=0.1)
    assert "complete" in refused(Reason.IMAGE_UNAVAILABLE, load, loader, f"{web.url}/x").detail


def test_queries_stay_out_of_errors_and_of_the_log(
    root: Path, web: WebServer, caplog: pytest.LogCaptureFixture, refused: Refusal
) -> None:
    caplog.set_level(logging.INFO)
    web.answers["/1"] = redirect("/2?signature=secret")
    web.answers["/2"] = in_turn(status(503), status(404))
    error = refused(Reason.IMAGE_NOT_FOUND, load, loader_for(root, web.host), f"{web.url}/1?signature=secret")
    assert "secret" not in error.detail + caplog.text
    assert web.requests[0] == "/1?signature=secret"


def test_lines_that_are_no_headers_are_passed_over_and_bring_no_query_into_the_log(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sloppy = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nno header\r\nX: y\r\n\r\n" % len(FILE)
    with raw_server(saying(sloppy, FILE)) as server:
        load(loader_for(root, server.host), f"http://{server.host}/x?signature=secret")
    assert not caplog.text


def test_threads_share_the_connections_of_one_loader(root: Path, web: WebServer) -> None:
    for index in range(20):
        web.answers[f"/{index}"] = status(200, png(color=(index, index, index)))
    loader = loader_for(root, web.host)

    def check(index: int) -> None:
        assert load(loader, f"{web.url}/{index}").getpixel((0, 0)) == (index, index, index)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, list(range(20)) * 5))
