"""The proxy itself: a thread that passes requests on to the real store, or has them meet their fault."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.faulty_store.faults import Fate, Fault, Kind
from tests.faulty_store.requests import Request

Hook = Callable[[Request], None]

# Headers that belong to one connection and are not passed on.
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "expect", "transfer-encoding"})
_TRICKLE_SECONDS = 0.05


@dataclass
class FaultyStore:
    """A running proxy.

    :param url: the endpoint that the client is given.
    :param requests: what the client has asked so far, in the order of arrival.
    """

    url: str
    requests: list[Request] = field(default_factory=list)


@contextmanager
def faulty_store(
    endpoint_url: str,
    faults: Sequence[Fault] | Callable[[Request], Kind | None] = (),
    *,
    seed: int = 0,
    before: Hook | None = None,
    after: Hook | None = None,
) -> Iterator[FaultyStore]:
    """Run a proxy in front of the store at ``endpoint_url``, for as long as the context lasts.

    :param faults: what goes wrong, see :class:`Fault`; or a function that decides for each request.
    :param seed: chooses the requests that faults with a rate befall.
    :param before: called with each request before it is passed on, or meets its fault.
    :param after: called with each request that was carried out, before it is answered.
    """
    fate = faults if callable(faults) else Fate(faults, seed)
    upstream = urlsplit(endpoint_url)
    closing = threading.Event()
    connections: set[socket.socket] = set()
    wrong = itertools.count()
    proxy = FaultyStore("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            connections.add(self.connection)

        def finish(self) -> None:
            connections.discard(self.connection)
            with suppress(OSError):
                super().finish()

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client went away: after a timeout, or because a test killed it
                super().handle()

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, self.path, self.headers, body)
            proxy.requests.append(request)
            kind = fate(request)
            request.fault = kind and kind.name
            if before is not None:
                before(request)
            if kind is Kind.RESET:
                self._break_off()
            elif kind is Kind.STALLED:
                closing.wait()
                self._break_off()
            elif kind is not None and kind.refusal is not None:
                self._refuse(request, *kind.refusal)
            else:
                self._pass_on(request, kind)

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

        def _pass_on(self, request: Request, kind: Kind | None) -> None:
            connection = HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
            try:
                connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
                for name, value in request.headers.items():
                    if name.lower() not in _HOP_BY_HOP:
                        connection.putheader(name, value)
                connection.endheaders(request.body)
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
            if after is not None:
                after(request)
            if kind is Kind.ANSWER_LOST:
                self._break_off()
                return
            headers = _end_to_end(answer.headers)
            if kind is Kind.WRONG_ETAG and "ETag" in headers:
                headers.replace_header("ETag", f'"{next(wrong):032x}"')  # another one every time
            if kind is Kind.METADATA_LOST:
                for name in [name for name in headers if name.lower().startswith("x-amz-meta-")]:
                    del headers[name]
            self._answer(request, answer.status, headers, body, kind)

        def _refuse(self, request: Request, status: int, code: str) -> None:
            body = f"<Error><Code>{code}</Code><Message>a fault was asked for</Message></Error>".encode()
            headers = HTTPMessage()
            headers["Content-Type"] = "application/xml"
            headers["Content-Length"] = str(len(body))
            self._answer(request, status, headers, b"" if request.method == "HEAD" else body, None)

        def _answer(self, request: Request, status: int, headers: HTTPMessage, body: bytes, kind: Kind | None) -> None:
            request.status = status
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if kind is Kind.FLIPPED and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            if kind is Kind.TRUNCATED:
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif kind is Kind.EMPTIED:
                self.close_connection = True
            elif kind is Kind.TRICKLE:
                for byte in body:
                    if closing.wait(_TRICKLE_SECONDS):
                        break
                    self.wfile.write(bytes([byte]))
                self.close_connection = True
            else:
                self.wfile.write(body)

        def _break_off(self) -> None:
            # without lingering, a close is a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def shutdown_request(self, request: Any) -> None:
            self.close_request(request)  # at once: the orderly farewell would spoil a reset

    server = Server(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
        for connection in list(connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _end_to_end(headers: HTTPMessage) -> HTTPMessage:
    kept = HTTPMessage()
    for name, value in headers.items():
        if name.lower() not in _HOP_BY_HOP:
            kept[name] = value
    return kept
