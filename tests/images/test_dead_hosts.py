"""A web host that has stopped answering costs a data set of a million rows minutes, not weeks."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import Storage
from tests.images.conftest import Answer, Refusal, WebServer, load, status
from tests.images.pictures import drawn, encoded

FILE = encoded(drawn())
UNAVAILABLE = Reason.IMAGE_UNAVAILABLE
TRIES = 4


class Clock:
    """Stands in for the time that passes while a host is silent."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("clip_operator.images.dead_hosts.monotonic", clock)
    monkeypatch.setattr("urllib3.util.retry.time.sleep", [].append)
    return clock


@pytest.fixture
def other(web: WebServer) -> Iterator[WebServer]:
    server = WebServer("127.0.0.2", web.port)
    server.anything_else = status(200, FILE)
    yield server
    server.close()


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def loader_for(*servers: WebServer) -> ImageLoader:
    return ImageLoader(Storage(), ImagePolicy(".", image_hosts=tuple(server.host for server in servers)))


def fail(loader: ImageLoader, web: WebServer, clock: Clock, images: int, refused: Refusal) -> None:
    for number in range(images):
        refused(UNAVAILABLE, load, loader, f"{web.url}/{number}")
        clock.seconds += 2.5


@pytest.mark.parametrize("trouble", [hang_up, status(429), status(502), status(503), status(504)])
def test_a_host_that_answers_nothing_for_half_a_minute_is_given_up_until_it_answers_again(
    web: WebServer, clock: Clock, trouble: Answer, refused: Refusal, caplog: pytest.LogCaptureFixture
) -> None:
    web.anything_else = trouble
    loader = loader_for(web)
    fail(loader, web, clock, 16, refused)
    assert web.calls.total() == 16 * TRIES
    assert "stopped answering" in refused(UNAVAILABLE, load, loader, f"{web.url}/x?signature=secret").detail
    assert web.calls.total() == 16 * TRIES

    clock.seconds += 15  # one image is tried now and then, and the others do not wait for it
    refused(UNAVAILABLE, load, loader, f"{web.url}/x")
    refused(UNAVAILABLE, load, loader, f"{web.url}/x")
    assert web.calls.total() == 17 * TRIES

    web.anything_else = status(200, FILE)
    refused(UNAVAILABLE, load, loader, f"{web.url}/x")
    clock.seconds += 15
    for _ in range(3):
        load(loader, f"{web.url}/x")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"The host {web.host} answered none of the last 16 images" in caplog.text


def test_a_host_that_cannot_be_connected_to_is_given_up(clock: Clock, web: WebServer, refused: Refusal) -> None:
    web.close()
    loader = loader_for(web)
    fail(loader, web, clock, 16, refused)
    assert "stopped answering" in refused(UNAVAILABLE, load, loader, f"{web.url}/x").detail


def test_a_short_outage_costs_no_more_images_than_fail_in_it(web: WebServer, clock: Clock, refused: Refusal) -> None:
    web.anything_else = hang_up
    loader = loader_for(web)
    for number in range(40):
        refused(UNAVAILABLE, load, loader, f"{web.url}/{number}")
    web.anything_else = status(200, FILE)
    load(loader, f"{web.url}/x")
    assert web.calls.total() == 40 * TRIES + 1


def test_a_host_that_answers_now_and_then_is_always_asked(web: WebServer, clock: Clock, refused: Refusal) -> None:
    web.anything_else = hang_up
    web.answers["/there"] = status(200, FILE)
    web.answers["/gone"] = status(404)
    loader = loader_for(web)
    for _ in range(3):
        fail(loader, web, clock, 15, refused)
        load(loader, f"{web.url}/there")
        fail(loader, web, clock, 15, refused)
        refused(Reason.IMAGE_NOT_FOUND, load, loader, f"{web.url}/gone")
    assert web.calls.total() == 3 * (2 * 15 * TRIES + 2)


def test_an_error_that_may_be_the_images_own_is_no_sign_of_a_dead_host(
    web: WebServer, clock: Clock, refused: Refusal
) -> None:
    web.anything_else = status(500)
    fail(loader_for(web), web, clock, 30, refused)
    assert web.calls.total() == 30 * TRIES


def test_one_host_is_given_up_and_others_are_not(
    web: WebServer, other: WebServer, clock: Clock, refused: Refusal
) -> None:
    web.anything_else = hang_up
    other.answers["/moved"] = status(302, Location=f"{web.url}/x")
    loader = loader_for(web, other)
    for _ in range(20):
        refused(UNAVAILABLE, load, loader, f"{other.url}/moved")
        clock.seconds += 2
    assert web.calls.total() < 20 * TRIES
    load(loader, f"{other.url}/x")


def test_thousands_of_images_of_a_dead_host_fail_at_once(web: WebServer, clock: Clock, refused: Refusal) -> None:
    web.anything_else = hang_up
    loader = loader_for(web)
    fail(loader, web, clock, 16, refused)

    def fails(number: int) -> None:
        refused(UNAVAILABLE, load, loader, f"{web.url}/{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fails, range(2_000)))
    assert web.calls.total() == 16 * TRIES
