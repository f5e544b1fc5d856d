"""Puts a distance between a server on this machine and its clients: every request takes some milliseconds more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 18


@contextmanager
def distant(endpoint_url: str, seconds: float) -> Iterator[str]:
    """Give the URL of a proxy on loopback that passes bytes on to ``endpoint_url``, requests only after ``seconds``.

    Bytes are passed on as they are, the Host header among them, which the signatures of S3 cover. Connections are kept
    alive if client and server keep them.
    """
    upstream = urlsplit(endpoint_url)
    loop = asyncio.new_event_loop()
    proxy = _Proxy(upstream.hostname or "127.0.0.1", upstream.port or 80, seconds)
    server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", 0, backlog=1024))
    thread = threading.Thread(target=loop.run_forever, name="latency-proxy", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Proxy:
    def __init__(self, host: str, port: int, seconds: float) -> None:
        self._host, self._port, self._seconds = host, port, seconds

    async def serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(self._host, self._port, limit=_CHUNK_BYTES)
        except OSError:
            client_writer.close()
            return
        connection = _Connection(self._seconds)
        directions = {
            asyncio.create_task(connection.pass_requests(client_reader, server_writer)),
            asyncio.create_task(connection.pass_answers(server_reader, client_writer)),
        }
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            for writer in (client_writer, server_writer):
                writer.close()


class _Connection:
    """One client's connection. What the client says after an answer is a new request, and is delayed.

    In HTTP/1.1 without pipelining, which no S3 client uses, that is every request exactly once; a client that waits to
    be told to send its body waits once more, as it would for a distant server.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._answered = True

    async def pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                if self._answered:
                    self._answered = False
                    await asyncio.sleep(self._seconds)
                writer.write(data)
                await writer.drain()

    async def pass_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                self._answered = True
                writer.write(data)
                await writer.drain()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
