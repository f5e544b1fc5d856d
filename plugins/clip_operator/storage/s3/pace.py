"""How slow a store may be: bodies in both directions must keep an average speed, or count as broken."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from io import SEEK_CUR, SEEK_END, SEEK_SET
from typing import Any, BinaryIO

from botocore.exceptions import ResponseStreamingError

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
        seconds = time.monotonic() - self._began
        if seconds > self._grace_seconds + self._bytes / MINIMUM_BYTES_PER_SECOND:
            raise TimeoutError(f"only {self._bytes:,} bytes in {seconds:.0f} seconds")


class PacedAnswer:
    """An answer's body, in place of the urllib3 response that botocore would read.

    A socket's own timeout starts anew with every byte, and botocore reads until it has all that it wants: from a store
    that trickles it would read for ever.

    :param raw: the urllib3 response.
    """

    def __init__(self, raw: Any, grace_seconds: float) -> None:
        self._raw = raw
        self._pace = Pace(grace_seconds)

    def read(self, amt: int | None = None) -> bytes:
        """Return ``amt`` bytes, or fewer where the body ends; None: all of it.

        :raises ResponseStreamingError: it is too slow; such a request is tried again.
        """
        chunks = []
        missing = amt
        while missing is None or missing > 0:
            chunk = self._raw.read1(_CHUNK_BYTES if missing is None else min(missing, _CHUNK_BYTES))
            if not chunk:
                break
            try:
                self._pace.passed(len(chunk))
            except TimeoutError as error:
                raise ResponseStreamingError(error=error) from None
            chunks.append(chunk)
            missing = None if missing is None else missing - len(chunk)
        return b"".join(chunks)

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
