"""A server on loopback whose answers are bytes of the test's choosing, piece by piece, and for ever if need be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat

Answer = Callable[[socket.socket, threading.Event], None]
"""What is done with a connection; the event is set when the server closes."""

PAUSE_SECONDS = 0.01


class RawServer:
    """Takes connections.

    :param answers: what is done with the first, the second, …
    :param afterwards: what is done with all others.
    """

    def __init__(self, *answers: Answer, afterwards: Answer) -> None:
        self._answers = list(answers)
        self._afterwards = afterwards
        self.connections = 0
        self._open: list[tuple[socket.socket, threading.Thread]] = []
        self._closing = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                connection, _ = self._listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answer = self._answers.pop(0) if self._answers else self._afterwards
                self.connections += 1
                thread = threading.Thread(target=self._speak, args=(connection, answer), daemon=True)
                thread.start()
                self._open.append((connection, thread))

    def _speak(self, connection: socket.socket, answer: Answer) -> None:
        with suppress(OSError), connection:
            answer(connection, self._closing)

    def is_left_by_all(self, seconds: float) -> bool:
        """Tell whether nobody listens any more to what is being said, at the latest after so many seconds each."""
        for _, thread in self._open:
            thread.join(seconds)
        return not any(thread.is_alive() for _, thread in self._open)

    def close(self) -> None:
        self._closing.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for connection, thread in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def raw_server(*answers: Answer, afterwards: Answer | None = None) -> Iterator[RawServer]:
    """Run a server; by default it does with all connections what it does with the last."""
    server = RawServer(*answers, afterwards=afterwards or answers[-1])
    try:
        yield server
    finally:
        server.close()


def saying(*pieces: bytes, then: Callable[[], Iterable[bytes]] = tuple, pause_seconds: float = PAUSE_SECONDS) -> Answer:
    """Answer a request with pieces, a pause after each, and close the connection if they end."""

    def answer(connection: socket.socket, closing: threading.Event) -> None:
        heard(connection)
        for piece in chain(pieces, then()):
            connection.sendall(piece)
            if closing.wait(pause_seconds):
                return

    return answer


def for_ever(piece: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: repeat(piece)


def one_by_one(data: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: (data[place : place + 1] for place in range(len(data)))


def heard(connection: socket.socket) -> bytes:
    """Return a request's head, when it is there."""
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(1 << 16)
        if not received:
            break
        head += received
    return head


def wait_until_left(connection: socket.socket) -> None:
    """Read requests without answering them, until the client closes the connection."""
    while connection.recv(1 << 16):
        pass


def passing_on(host: str) -> Answer:
    """Pass everything on, to and fro."""

    def answer(connection: socket.socket, closing: threading.Event) -> None:
        name, _, port = host.rpartition(":")
        with socket.create_connection((name, int(port))) as other:
            back = threading.Thread(target=pump, args=(other, connection), daemon=True)
            back.start()
            pump(connection, other)
            back.join()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(1 << 16):
                target.sendall(received)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    return answer
