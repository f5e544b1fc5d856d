"""Faults that a test orders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class RefusedRequests:
    """Requests that are answered with an error."""

    method: str
    pattern: re.Pattern[str]
    status: int
    headers: Mapping[str, str]
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
    open_watches: int = 0
    ended_watches: int = 0
    """Counts how often the watches were ended, so that an open one sees that it was."""

    end_next_watch: bool = False

    def refusal(self, method: str, path: str) -> RefusedRequests | None:
        """Return the first ordered refusal of such a request, and count it as done."""
        for refusal in self.refusals:
            if refusal.method == method and refusal.pattern.search(path):
                refusal.left -= 1
                if refusal.left == 0:
                    self.refusals.remove(refusal)
                return refusal
        return None

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
