"""What the tests of S3 share: a store that checks nothing, for what the real one would not let through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faulty_store import FaultyStore, faulty_store
from tests.images.conftest import WebServer
from tests.storage.s3.reading import with_headers


@pytest.fixture
def web() -> Iterator[WebServer]:
    """It has one bucket, and the object that is read first."""
    server = WebServer()
    server.answers["/bucket/first"] = with_headers(b"first")
    yield server
    server.close()


@pytest.fixture
def simple(web: WebServer, no_pauses: list[float]) -> Iterator[FaultyStore]:
    """The proxy in front of it."""
    with faulty_store(web.url) as proxy:
        yield proxy
