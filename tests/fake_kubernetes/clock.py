"""The clock of the node, which need not agree with anybody else's."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Clock:
    """A clock that may be ahead of this machine's, or behind it."""

    skew_seconds: float = 0.0

    def now(self) -> int:
        """Return the time that it shows, in nanoseconds since the epoch."""
        return time.time_ns() + round(self.skew_seconds * 1_000_000_000)
