"""What the tests of images share: loaders, and a real HTTP server on loopback."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import Storage

Answer = Callable[[BaseHTTPRequestHandler], None]


class WebServer:
    """HTTP/1.1 on loopback. ``answers`` maps a path to what is done about a GET of it; ``calls`` counts them.

    :param tls: to speak https.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.anything_else: Answer = status(404)
        self.calls: Counter[str] = Counter()
        self.requests: list[str] = []
        self.hosts: list[str] = []
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or head and body, written apart, wait 40 ms for each other

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                server.calls[path] += 1
                server.requests.append(self.path)
                server.hosts.append(self.headers["Host"])
                server.answers.get(path, server.anything_else)(self)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        self.host = f"{address}:{self.port}"
        self.url = f"{'http' if tls is None else 'https'}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with a status, a body and its true length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


def load(loader: ImageLoader, reference: object) -> Image.Image:
    """Return the pixels of the image that a reference names, out of the block in which they count."""
    with loader.decode(loader.fetch(loader.locate(reference))) as image:
        return image


def decode(data: bytes, max_pixels: int = 178_956_970, at_least: int | None = None) -> Image.Image:
    """Return the pixels of an image file, out of the block in which they count."""
    loader = ImageLoader(Storage(), ImagePolicy(root=".", max_pixels=max_pixels))
    with loader.decode(data, at_least) as image:
        return image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def loader(root: Path) -> ImageLoader:
    return ImageLoader(Storage(), ImagePolicy(root=str(root)))


class Refusal:
    """Checks that something is refused as a row's error, for one reason, in one short line."""

    def __call__(self, reason: Reason, action: Callable[..., object], *args: object) -> RowError:
        with pytest.raises(RowError) as caught:
            action(*args)
        assert caught.value.reason is reason, caught.value
        assert len(caught.value.detail) < 400
        assert caught.value.detail.isprintable()
        return caught.value


@pytest.fixture
def refused() -> Refusal:
    return Refusal()
