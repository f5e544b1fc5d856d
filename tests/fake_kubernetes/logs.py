"""A container's log: lines with the times at which they came, and readers who wait for more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from .clock import Clock
from .objects import time_text


class Broadcast:
    """Wakes everybody in the event loop who waits for a change."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Wake those who wait now."""
        self._next.set()
        self._next = asyncio.Event()

    def wait(self) -> Coroutine[Any, Any, Literal[True]]:
        """Return what waits for the next change, counted from this call and not from when it is awaited."""
        return self._next.wait()


@dataclass(frozen=True)
class Line:
    """A line of a log."""

    nanoseconds: int
    """When it came by the node's clock, since the epoch."""

    text: bytes
    """The line with its newline."""

    def rendered(self, *, timestamps: bool) -> bytes:
        """Return the line as the API server sends it."""
        return (time_text(self.nanoseconds, fraction=True).encode() + b" " if timestamps else b"") + self.text


class Log:
    """What a container wrote to stdout and stderr, in the order it came."""

    def __init__(self, changed: Callable[[], None], clock: Clock) -> None:
        self.lines: list[Line] = []
        self.closed = False
        self.more = Broadcast()
        self._changed = changed
        self._clock = clock
        self._unfinished = b""

    def write(self, chunk: bytes) -> None:
        """Add output; a line counts once it is finished."""
        *finished, self._unfinished = (self._unfinished + chunk).split(b"\n")
        self._add(finished)

    def flush(self) -> None:
        """Make a line of what came without a newline: nothing more will."""
        if self._unfinished:
            self._add([self._unfinished])
            self._unfinished = b""

    def close(self) -> None:
        """Let those who follow the log come to its end."""
        self.flush()
        self.closed = True
        self.more.tell()

    def start(self, since_seconds: int | None, tail_lines: int | None) -> int:
        """Return the index of the first line that a reader asks for."""
        first = 0 if tail_lines is None else max(0, len(self.lines) - tail_lines)
        if since_seconds is not None:
            oldest = self._clock.now() - since_seconds * 1_000_000_000
            while first < len(self.lines) and self.lines[first].nanoseconds < oldest:
                first += 1
        return first

    @property
    def text(self) -> str:
        """The whole log."""
        return b"".join(line.text for line in self.lines).decode(errors="replace")

    def _add(self, texts: list[bytes]) -> None:
        if texts:
            self.lines += [Line(self._clock.now(), text + b"\n") for text in texts]
            self.more.tell()
            self._changed()
