"""Puts a distance between a server on this machine and its clients: every request takes some milliseconds more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def distant(endpoint_url: str, seconds: float) -> Iterator[str]:
    """Give the URL of a proxy on loopback that passes bytes on to ``endpoint_url``, requests only after ``seconds``.

    Bytes are passed on as they are, the Host header among them, which the signatures of S3 cover. Connections are kept
    alive if client and server keep them.
    """
    upstream = urlsplit(endpoint_url)
    address = upstream.hostname or "127.0.0.1", upstream.port or 80
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: _Client(loop, address, seconds), "127.0.0.1", 0, backlog=1024)
    )
    thread = threading.Thread(target=loop.run_forever, name="latency-proxy", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Side(asyncio.Protocol):
    """One side of a connection. Protocols, not streams: it shares the processors with what is measured."""

    transport: asyncio.Transport | None = None
    other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()


class _Client(_Side):
    """The client's side. What the client says after an answer is a new request, and is delayed.

    In HTTP/1.1 without pipelining, which no S3 client uses, that is every request exactly once; a client that waits to
    be told to send its body waits once more, as it would for a distant server.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int], seconds: float) -> None:
        self._loop = loop
        self._address = address
        self._seconds = seconds
        self._held: list[bytes] = []
        self._delayed = False
        self.answered = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = self._loop.create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        self._held.append(data)
        if self.answered:
            self.answered, self._delayed = False, True
            self._loop.call_later(self._seconds, self._let_go)
        elif not self._delayed:
            self._pass_on()

    def _let_go(self) -> None:
        self._delayed = False
        self._pass_on()

    def _pass_on(self) -> None:
        if self.other is not None and self.other.transport is not None and not self._delayed:
            self.other.transport.writelines(self._held)
            self._held.clear()

    async def _connect(self) -> None:
        assert self.transport is not None
        try:
            _, self.other = await self._loop.create_connection(lambda: _Server(self), *self._address)
        except OSError:
            self.transport.close()
        else:
            self._pass_on()


class _Server(_Side):
    """The server's side."""

    def __init__(self, client: _Client) -> None:
        self.other: _Client = client

    def data_received(self, data: bytes) -> None:
        self.other.answered = True
        if self.other.transport is not None:
            self.other.transport.write(data)
