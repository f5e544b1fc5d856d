"""Whether the work under way was told to stop, asked by whatever reads without knowing how much there is to read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from clip_operator.errors import Cancelled

# Not an argument: it would have to pass through every reader, down to the one that unpacks a block of gzip.
_told: ContextVar[threading.Event | None] = ContextVar("told to stop", default=None)


@contextmanager
def stopped_by(stop: threading.Event) -> Iterator[None]:
    """Let ``stop``, which any thread may set, end what is done inside by :class:`Cancelled`."""
    before = _told.set(stop)
    try:
        yield
    finally:
        _told.reset(before)


def check_not_stopped() -> None:
    """Raise :class:`Cancelled` if what is under way was told to stop. It costs next to nothing."""
    stop = _told.get()
    if stop is not None and stop.is_set():
        raise Cancelled("stopped before the work was done")
