"""The image workers of a job as its operating system sees them: which they are, and what they have used."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROGRAM = b"clip_operator.images.workers"
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_SECONDS_BETWEEN_LOOKS = 0.02


def workers_of(parent: int) -> dict[int, float]:
    """Return the workers that a process has, each with the seconds of a processor that it has used."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            # Behind the name, which may hold anything: state, parent, …, and as the 12th and 13th the processor time.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and _PROGRAM in (folder / "cmdline").read_bytes():
                found[int(folder.name)] = (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
    return found


@contextmanager
def watched(look: Callable[[dict[int, float]], bool], parent: int | None = None) -> Iterator[None]:
    """Look at the workers of a process, by default this one, time and again in a thread, until ``look`` is content."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN_LOOKS) and not look(workers_of(parent or os.getpid())):
            pass

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
