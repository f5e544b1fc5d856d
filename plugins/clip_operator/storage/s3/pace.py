"""How slow a store may be: the head of an answer must be there in time, and bodies keep an average speed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from io import SEEK_CUR, SEEK_END, SEEK_SET
from typing import Any, BinaryIO

from botocore.exceptions import ResponseStreamingError
from urllib3.exceptions import TimeoutError as NothingCame

from clip_operator.machine.connections import Deadline

MINIMUM_BYTES_PER_SECOND = 16 << 10
_CHUNK_BYTES = 1 << 16


class Pace:
    """Measures one body.

    :param grace_seconds: time that passes before its average speed counts.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._began = time.monotonic()
        self._bytes = 0

    def passed(self, count: int) -> None:
        """Count bytes that went through.

        :raises TimeoutError: the body is too slow.
        """
        self._bytes += count
        if self.left() < 0:
            raise TimeoutError(f"only {self._bytes:,} bytes in {time.monotonic() - self._began:.0f} seconds")

    def left(self) -> float:
        """Return in how many seconds the body is too slow, if nothing more goes through."""
        return self._began + self._grace_seconds + self._bytes / MINIMUM_BYTES_PER_SECOND - time.monotonic()


class Exchange(Deadline):
    """The deadline of one request and its answer, which moves as the one and then the other goes on.

    Each piece of the request has the time that its size allows, and the answer's head ``head_seconds`` as a whole:
    interim answers, status line and headers. The body's deadline is for who reads it to move.

    :param head_seconds: time for an answer's head, and the grace of each piece of the request.
    """

    def __init__(self, head_seconds: float) -> None:
        super().__init__(head_seconds)
        self._head_seconds = head_seconds

    def sending(self, count: int) -> None:
        self.move(self._head_seconds + count / MINIMUM_BYTES_PER_SECOND)

    def awaiting_answer(self) -> None:
        self.move(self._head_seconds)


class PacedAnswer:
    """An answer's body, in place of the urllib3 response that botocore would read.

    A socket's own timeout starts anew with every byte, and botocore reads until it has all that it wants: from a store
    that trickles it would read for ever. Between chunks and behind the last one it may also say what is no part of the
    body, so the deadline of the exchange is moved along with the body.

    :param raw: the urllib3 response.
    """

    def __init__(self, raw: Any, deadline: Deadline, grace_seconds: float) -> None:
        self._raw = raw
        self._deadline = deadline
        self._pace = Pace(grace_seconds)

    def read(self, amt: int | None = None) -> bytes:
        """Return ``amt`` bytes, or fewer where the body ends; None: all of it.

        :raises ResponseStreamingError: it is too slow; such a request is tried again.
        """
        chunks = []
        missing = amt
        while missing is None or missing > 0:
            chunk = self._read1(_CHUNK_BYTES if missing is None else min(missing, _CHUNK_BYTES))
            if not chunk:
                break
            chunks.append(chunk)
            missing = None if missing is None else missing - len(chunk)
        return b"".join(chunks)

    def _read1(self, most: int) -> bytes:
        self._deadline.move(self._pace.left())
        try:
            try:
                chunk: bytes = self._raw.read1(most)
            except NothingCame:  # or not enough
                self._pace.passed(0)
                raise
            if chunk:
                self._pace.passed(len(chunk))
        except TimeoutError as error:
            raise ResponseStreamingError(error=error) from None
        return chunk

    def stream(self) -> Iterator[bytes]:
        """Yield the whole body."""
        yield self.read()

    def close(self) -> None:
        """Give the connection up, unless the body was read to its end."""
        self._raw.close()


class PacedBody:
    """A range of a file as the body of a request: read while it is sent, so that no more than a chunk is in memory.

    :param file: the file, which nothing else reads meanwhile.
    :param start: the range's first byte.
    :param length: its length in bytes.
    :param grace_seconds: see :class:`Pace`.
    """

    def __init__(self, file: BinaryIO, start: int, length: int, grace_seconds: float) -> None:
        self._file = file
        self._start, self.length = start, length
        self._grace_seconds = grace_seconds
        self._pace: Pace | None = None
        self.seek(0)

    def read(self, amount: int | None = None) -> bytes:
        """Return the next bytes; how fast they are asked for is how fast the store takes them."""
        if self._pace is None:
            self._pace = Pace(self._grace_seconds)
        left = self.length - self.tell()
        data = self._file.read(left if amount is None or amount < 0 else min(amount, left))
        self._pace.passed(len(data))
        return data

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Go to a place within the range: to the beginning before every try, after it was hashed or sent before."""
        base = {SEEK_SET: 0, SEEK_CUR: self.tell(), SEEK_END: self.length}[whence]
        self._file.seek(self._start + base + offset, os.SEEK_SET)
        self._pace = None
        return self.tell()

    def tell(self) -> int:
        """Return the place within the range."""
        return self._file.tell() - self._start
