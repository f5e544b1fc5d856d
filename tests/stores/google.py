"""A stand-in for Google Cloud Storage: its XML API on loopback, in front of moto's S3.

No emulator that pip or npm were found to bring speaks the XML API, which obstore speaks. That API is S3's in most
things: objects, ranges, ETags, listings, uploads in parts and the words of errors are moto's. What is Google's own is
made here: bearer tokens, generations and the condition on them, and ``x-goog-meta-…``. What it leaves open is what the
real store does where it differs from S3 in a way that its documentation does not tell.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tests.stores.moto import moto_server

_NOT_PASSED_ON = frozenset({"host", "connection", "authorization", "accept-encoding", "content-length"})
_NOT_HANDED_BACK = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


@dataclass
class GoogleStore:
    """A running stand-in."""

    url: str = ""
    s3_url: str = ""
    generations: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which Google's own libraries, gcsfs and this package reach it."""
        return self.environment_at(self.url)

    @staticmethod
    def environment_at(url: str) -> dict[str, str]:
        """The same, for what stands in front of it."""
        return {"STORAGE_EMULATOR_HOST": url}

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        self._put(f"/{name}", b"")

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Put an object under exactly this key, also one that obstore has no word for."""
        self._put(f"/{bucket}/{quote(key)}", body)

    def _put(self, target: str, body: bytes) -> None:
        upstream = urlsplit(self.s3_url)
        connection = HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        connection.request("PUT", target, body, {"Authorization": _SIGNED})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        connection.close()


# moto looks only for whose request it is.
_SIGNED = "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.headers.get("Authorization", "").startswith("Bearer "):
            self._refuse(401, "AuthenticationRequired")
            return
        url = urlsplit(self.path)
        path = unquote(url.path)
        target = quote(path) + (f"?{url.query}" if url.query else "")
        if self.command in ("GET", "HEAD"):
            self._pass_on(path, target, body)
            return
        with self.server.writing:
            expected = self.headers.get("x-goog-if-generation-match")
            if expected is not None and self.server.store.generations.get(path, "0") != expected:
                self._refuse(412, "PreconditionFailed")
                return
            self._pass_on(path, target, body)

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _pass_on(self, path: str, target: str, body: bytes) -> None:
        generations = self.server.store.generations
        before = generations.get(path)  # what is told of a read must not be younger than what was read
        try:
            answer, content = self._upstream(target, body)
        except (OSError, HTTPException):  # moto's server drops a connection now and then when much is asked of it
            self._refuse(503, "ServiceUnavailable")
            return
        self._learn(path, answer.status)
        generation = before if self.command in ("GET", "HEAD") else generations.get(path)
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _NOT_HANDED_BACK]
        if generation is not None:
            kept.append(("x-goog-generation", generation))
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, kept, content, length)

    def _upstream(self, target: str, body: bytes) -> tuple[HTTPResponse, bytes]:
        upstream = urlsplit(self.server.store.s3_url)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
        renamed = {name.lower().replace("x-goog-meta-", "x-amz-meta-"): value for name, value in headers.items()}
        with closing(HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)) as connection:
            connection.request(self.command, target, body, {**renamed, "Authorization": _SIGNED})
            answer = connection.getresponse()
            return answer, answer.read()

    def _learn(self, path: str, status: int) -> None:
        query = urlsplit(self.path).query
        is_complete = self.command == "POST" and "uploadId" in query
        if status == 200 and (is_complete or (self.command == "PUT" and not query)):
            self.server.store.generations[path] = str(next(self.server.numbers))
        elif self.command == "DELETE" and not query:
            self.server.store.generations.pop(path, None)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, [], f"<Error><Code>{code}</Code></Error>".encode(), None)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name.lower().replace("x-amz-meta-", "x-goog-meta-"), value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: GoogleStore) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.writing = threading.Lock()
        self.numbers = itertools.count(1_700_000_000_000_000)


@contextmanager
def google_store(folder: Path) -> Iterator[GoogleStore]:
    """Run it, with moto's log in ``folder``, for as long as the context lasts."""
    with moto_server(folder) as upstream:
        store = GoogleStore(s3_url=upstream.endpoint_url)
        server = _Server(store)
        store.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
