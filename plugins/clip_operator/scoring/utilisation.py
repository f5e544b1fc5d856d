"""Where the time of a run went: how long the model computed, and what it waited for otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Activity(StrEnum):
    """What a lane of the encoder does, or waits for."""

    READ = "read"
    FETCH = "fetch"
    DECODE = "decode"
    ENCODE = "encode"
    WRITE = "write"
    SAVE = "save"


class Utilisation:
    """Divides the time since it was made among encoding and the things that encoding waits for.

    Where two of four lanes compute for a second while the others wait for images to be fetched, half a second counts as
    ``ENCODE`` and half a second as ``FETCH``. All times together are the time that went by.

    :param lanes: how many batches can be encoded at once.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._computing = 0
        self._cause = Activity.READ
        self._seconds = dict.fromkeys(Activity, 0.0)
        self._lock = threading.Lock()
        self._started = self._last = time.perf_counter()
        self._ended: float | None = None

    def idle_lanes_wait_for(self, cause: Activity) -> None:
        """Say what a lane that does not compute waits for from now on; ``ENCODE`` if nothing is left for it to do."""
        with self._lock:
            self._advance()
            self._cause = cause

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the time inside as one lane's encoding."""
        with self._lock:
            self._advance()
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._advance()
                self._computing -= 1

    def end(self) -> None:
        """Say that all is done: what comes now is no part of it."""
        with self._lock:
            self._advance()
            self._ended = self._last

    @property
    def seconds(self) -> float:
        """The time since the start, up to the end."""
        return self._now() - self._started

    def shares(self) -> dict[str, float]:
        """Return each activity's part of the time so far; together they are 1."""
        with self._lock:
            self._advance()
            whole = sum(self._seconds.values())
            return {activity.value: round(seconds / whole, 4) for activity, seconds in self._seconds.items()}

    def _now(self) -> float:
        return time.perf_counter() if self._ended is None else self._ended

    def _advance(self) -> None:
        now = self._now()
        passed, self._last = now - self._last, now
        self._seconds[Activity.ENCODE] += passed * self._computing / self._lanes
        self._seconds[self._cause] += passed * (self._lanes - self._computing) / self._lanes
