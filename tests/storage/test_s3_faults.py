"""What breaks on the way to S3.

The store is a plain HTTP server that breaks where it is told to: a real S3 server cannot be made to close a connection
in the middle of a body, or to change an object between two requests of one download.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from clip_operator.storage import AccessDenied, CredentialsError, ObjectInfo, S3Access, Storage, StorageError

BODY = hashlib.shake_256(b"seed").digest(200_000)
# More than boto3 fetches in one request (8 MiB), so that a download is of several ranges.
LARGE = hashlib.shake_256(b"seed").digest(9 << 20)


@dataclass
class BreakingStore:
    """One object at /bucket/x, and how many of the next GETs of it are cut off in the middle of the body."""

    body: bytes = BODY
    cut: int = 0
    error: tuple[int, str] | None = None
    """The status and S3 code of every answer, where the store refuses everything."""
    before_get: Callable[[int], None] = lambda _: None
    gets: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    @property
    def info(self) -> ObjectInfo:
        return ObjectInfo("s3://bucket/x", len(self.body), self.etag)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self.lock:
            is_get = handler.command == "GET"
            self.gets += is_get
            if is_get:
                self.before_get(self.gets)
            body, etag = self.body, self.etag
            cut = is_get and self.cut > 0
            self.cut -= cut
        if self.error is not None:
            self._refuse(handler, *self.error)
            return
        expected = handler.headers.get("If-Match")
        if expected is not None and expected.strip('"') != etag:
            self._refuse(handler, 412, "PreconditionFailed")
            return
        wanted = handler.headers.get("Range")
        if wanted is not None:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = int(last) + 1 if last else len(body)
            span = f"bytes {first}-{end - 1}/{len(body)}"
            body = body[int(first) : end]
        handler.send_response(200 if wanted is None else 206)
        if wanted is not None:
            handler.send_header("Content-Range", span)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", f'"{etag}"')
        handler.end_headers()
        if is_get:
            handler.wfile.write(body[: len(body) // 2] if cut else body)
        handler.close_connection = True

    def _refuse(self, handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
        body = b"" if handler.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[BreakingStore]:
    store = BreakingStore()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            store.answer(self)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    # the pauses between tries are left out
    monkeypatch.setattr("clip_operator.storage.s3._retry_broken_body.sleep", lambda _: None)
    yield store
    server.shutdown()
    server.server_close()


@pytest.fixture
def storage(breaking: BreakingStore) -> Storage:
    session = boto3.session.Session("someone", "a-secret", region_name="us-east-1")
    return Storage(S3Access(session, breaking.url))


def test_a_read_that_breaks_in_the_middle_is_tried_again(breaking: BreakingStore, storage: Storage) -> None:
    breaking.cut = 1
    assert storage.read("s3://bucket/x") == BODY
    assert breaking.gets == 2


def test_a_read_that_breaks_every_time_is_an_error_in_words(breaking: BreakingStore, storage: Storage) -> None:
    breaking.cut = 100
    with pytest.raises(StorageError, match="s3://bucket/x: "):
        storage.read("s3://bucket/x")
    assert breaking.gets == 3


def test_a_download_that_breaks_in_the_middle_is_tried_again(
    breaking: BreakingStore, storage: Storage, tmp_path: Path
) -> None:
    breaking.cut = 1
    storage.download(breaking.info, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == BODY
    assert breaking.gets == 2


def test_a_download_that_breaks_every_time_is_an_error_in_words_and_leaves_no_file(
    breaking: BreakingStore, storage: Storage, tmp_path: Path
) -> None:
    breaking.cut = 100
    with pytest.raises(StorageError, match="s3://bucket/x: the connection broke, and again at every retry"):
        storage.download(breaking.info, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["in one request", "in several ranges"])
def test_an_object_that_changes_during_its_download_is_an_error(
    breaking: BreakingStore, storage: Storage, tmp_path: Path, body: bytes
) -> None:
    breaking.body = body
    seen = breaking.info

    def change(number: int) -> None:
        if number == 1:
            breaking.body = body[::-1]

    breaking.before_get = change
    with pytest.raises(StorageError, match="s3://bucket/x changed while it was being read; run the task again"):
        storage.download(seen, tmp_path / "copy")


def test_the_bytes_past_the_limit_are_not_fetched(breaking: BreakingStore, storage: Storage) -> None:
    breaking.cut = 1  # half a body would be tried again, if it were read
    with pytest.raises(StorageError, match="more than the 10 accepted"):
        storage.read("s3://bucket/x", max_bytes=10)
    assert breaking.gets == 1


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", AccessDenied),
        (403, "InvalidAccessKeyId", CredentialsError),
        (400, "ExpiredToken", CredentialsError),
        (400, "InvalidToken", CredentialsError),
    ],
)
def test_a_refusal_means_the_same_whether_its_answer_has_a_body_or_not(
    breaking: BreakingStore, storage: Storage, status: int, code: str, error: type[StorageError]
) -> None:
    breaking.error = status, code
    for action in (storage.stat, storage.read):
        with pytest.raises(error) as caught:
            action("s3://bucket/x")
        assert type(caught.value) is error
