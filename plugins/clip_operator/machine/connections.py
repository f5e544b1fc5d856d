"""HTTP connections that keep to a deadline, whatever is being sent or read, and to a size of what precedes a body.

A socket's own timeout starts anew with every byte. A peer that trickles, or has something to say without end, is heard
for ever: in a status line, in headers, in interim answers, between the chunks of a body and behind the last of them.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from math import inf
from time import monotonic
from typing import Any, cast

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

MAX_HEAD_BYTES = 256 << 10  # of an answer's interim answers, status line and headers; servers send a few thousand

_thread = threading.local()


class Deadline:
    """The time at which what a thread does on its connections must be over. Whoever holds it may move it.

    :param seconds: how far it is from now.
    """

    def __init__(self, seconds: float) -> None:
        self.move(seconds)

    def move(self, seconds: float) -> None:
        """Let it be so many seconds from now."""
        self._at = monotonic() + seconds

    def left(self) -> float:
        """Return how many seconds are left; none when it has passed."""
        return self._at - monotonic()

    def sending(self, count: int) -> None:
        """Hear that so many bytes are about to be sent."""

    def awaiting_answer(self) -> None:
        """Hear that a request has been sent, and its answer's head is about to be read."""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let it hold for the requests that this thread makes in the block, and for reading the answers later."""
        before = current_deadline()
        _thread.deadline = self
        try:
            yield
        finally:
            _thread.deadline = before


def current_deadline() -> Deadline | None:
    """Return the deadline that holds in this thread."""
    return getattr(_thread, "deadline", None)


class _TimedSocket:
    """A socket, of whichever kind, for a connection of urllib3: what it sends and reads ends at the deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._silence = sock.gettimeout()
        self._reader: _Reader | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def settimeout(self, seconds: float | None) -> None:
        """Set how long the peer may be silent."""
        self._silence = seconds
        self._sock.settimeout(seconds)

    def wait_no_longer_than(self, deadline: Deadline | None) -> None:
        """Have the next call end at the deadline.

        :raises TimeoutError: it has passed.
        """
        left = inf if deadline is None else deadline.left()
        if left <= 0:
            raise TimeoutError("the exchange took too long")
        limit = min(left, inf if self._silence is None else self._silence)
        self._sock.settimeout(None if limit == inf else limit)

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        deadline = current_deadline()
        if deadline is not None:
            deadline.sending(len(data))
        with memoryview(data).cast("B") as view:
            sent = 0
            while sent < len(view):
                self.wait_no_longer_than(deadline)
                sent += self._sock.send(view[sent:])

    def makefile(self, mode: str, buffering: int | None = None) -> io.BufferedReader | io.RawIOBase:
        """Return what is read from the socket as a binary file, at the beginning of which an answer's head stands."""
        assert mode == "rb"
        self._reader = _Reader(self, self._sock.makefile("rb", 0), current_deadline())
        return self._reader if buffering == 0 else io.BufferedReader(self._reader)

    def head_is_read(self) -> None:
        """Count no longer: what comes now is a body, and the business of who reads it."""
        if self._reader is not None:
            self._reader.head_bytes_left = None


class _Reader(io.RawIOBase):
    """What arrives on a socket, until the deadline that holds in the thread that asks for an answer."""

    def __init__(self, sock: _TimedSocket, raw: io.RawIOBase, deadline: Deadline | None) -> None:
        self._sock = sock
        self._raw = raw
        self._deadline = deadline
        self._has_ended = False
        self.head_bytes_left: int | None = MAX_HEAD_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self._has_ended:  # in the middle of a line: botocore would wait for the rest of it for ever
            raise ConnectionResetError("the connection ended too early")
        self._sock.wait_no_longer_than(self._deadline)
        count = self._raw.readinto(buffer)
        self._has_ended = count == 0
        if self.head_bytes_left is not None and count is not None:
            self.head_bytes_left -= count
            if self.head_bytes_left < 0:
                raise HTTPException(f"what precedes the body has more than {MAX_HEAD_BYTES:,} bytes")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class TimedConnection:
    """Makes a connection of urllib3 keep to the deadline; a base to be named before urllib3's own class.

    Connecting itself and TLS's handshake, which read no lines, keep to the connection's own timeout as a whole.
    """

    sock: Any

    def connect(self) -> None:
        """Connect, unless that is done."""
        super().connect()  # type: ignore[misc] # a mixin: the connection class beside it has it
        self.sock = _TimedSocket(self.sock)

    def _tunnel(self) -> None:
        # A proxy's answer is read before there is TLS, which takes the socket itself.
        bare = self.sock
        self.sock = _TimedSocket(bare)
        try:
            super()._tunnel()  # type: ignore[misc] # the same
        finally:
            self.sock = bare

    def getresponse(self) -> Any:
        """Return the answer, its head read."""
        if (deadline := current_deadline()) is not None:
            deadline.awaiting_answer()
        sock = self.sock  # the connection may let go of it, if it ends with the answer's body
        answer = super().getresponse()  # type: ignore[misc] # the same
        cast(_TimedSocket, sock).head_is_read()
        return answer


class _Answer(HTTPResponse):
    """Passes over lines in a head that are no headers, which urllib3 would log with the query of the URL."""

    def begin(self) -> None:
        super().begin()
        self.msg.defects.clear()
        self.msg.set_payload("")


class _TimedHTTPConnection(TimedConnection, HTTPConnection):
    """Plain."""

    response_class = _Answer


class _TimedHTTPSConnection(TimedConnection, HTTPSConnection):
    """With TLS."""

    response_class = _Answer


class _TimedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _TimedHTTPConnection


class _TimedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _TimedHTTPSConnection


TIMED_POOLS: dict[str, Any] = {"http": _TimedHTTPPool, "https": _TimedHTTPSPool}
"""For the ``pool_classes_by_scheme`` of urllib3's PoolManager."""
