"""Faults that a test orders."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class RefusedRequests:
    """Requests that are answered with an error."""

    method: str | None
    """None where those of every method are."""

    pattern: re.Pattern[str]
    status: int
    headers: Mapping[str, str]
    left: int | None
    """How many more; None where a test ends it."""

    message: str = "a fault that the test ordered"


@dataclass
class LostAnswers:
    """Requests that are carried out, and whose answer does not come."""

    method: str
    pattern: re.Pattern[str]
    left: int
    """How many more."""


@dataclass
class DroppedStreams:
    """Followed logs whose connection is cut."""

    after_lines: int
    left: int
    """How many more."""


@dataclass
class Faults:
    """The faults that are still to happen."""

    refusals: list[RefusedRequests] = field(default_factory=list)
    drops: list[DroppedStreams] = field(default_factory=list)
    losses: list[LostAnswers] = field(default_factory=list)
    open_watches: int = 0
    ended_watches: int = 0
    """Counts how often the watches were ended, so that an open one sees that it was."""

    end_next_watch: bool = False
    out: bool = False
    """Whether the API cannot be reached."""

    connections: set[asyncio.Transport] = field(default_factory=set)
    """Those on which a request is being answered."""

    def cut_everybody_off(self) -> None:
        """Cut every connection on which a request is being answered, and those of the requests that come."""
        self.out = True
        for connection in self.connections:
            connection.abort()

    def let_everybody_in(self) -> None:
        """Answer again."""
        self.out = False

    @contextmanager
    def connected(self, connection: asyncio.Transport | None) -> Iterator[None]:
        """Know of a connection while a request on it is answered."""
        if connection is None:
            yield
            return
        self.connections.add(connection)
        try:
            yield
        finally:
            self.connections.discard(connection)

    def refusal(self, method: str, path: str) -> RefusedRequests | None:
        """Return the first ordered refusal of such a request, and count it as done."""
        for refusal in self.refusals:
            if refusal.method in (None, method) and refusal.pattern.search(path):
                if refusal.left is not None:
                    refusal.left -= 1
                if refusal.left == 0:
                    self.refusals.remove(refusal)
                return refusal
        return None

    def loses_answer(self, method: str, path: str) -> bool:
        """Tell whether the answer to such a request is to be lost, and count it as done."""
        for loss in self.losses:
            if loss.method == method and loss.pattern.search(path):
                loss.left -= 1
                if loss.left == 0:
                    self.losses.remove(loss)
                return True
        return False

    def lines_before_drop(self) -> int | None:
        """Return after how many lines to cut a log stream that starts now, and count it as done."""
        if not self.drops:
            return None
        drop = self.drops[0]
        drop.left -= 1
        if drop.left == 0:
            self.drops.remove(drop)
        return drop.after_lines

    def end_watches(self) -> None:
        """End the watches that are open, or else the next one."""
        self.ended_watches += 1
        self.end_next_watch = self.open_watches == 0
