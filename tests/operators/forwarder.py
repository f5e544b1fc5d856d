"""A way to a server that a test can close: a TCP forwarder on loopback."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Forwarder:
    """Passes connections on to a server until it is closed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._closed = False
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Break every connection, and refuse new ones."""
        self._closed = True
        for each in [self._listener, *self._open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._closed:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            pair = {client: server, server: client}
            self._open |= pair.keys()
            while not self._closed:
                for ready in select.select(list(pair), [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    pair[ready].sendall(data)


@contextmanager
def forwarder(url: str) -> Iterator[Forwarder]:
    """Forward to the server at ``url`` while the context lasts, or until it is closed."""
    way = Forwarder(url)
    try:
        yield way
    finally:
        way.close()
