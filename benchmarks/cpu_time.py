"""The CPU time of processes: of this one, of all that it has started, and of any that runs.

Standard library only: contestants that must not load more use this module too.
"""

from __future__ import annotations

import os
import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class CpuSeconds(NamedTuple):
    """User and system time.

    :param own: of this process, all its threads.
    :param job: of this process and all that descend from it, living or ended.
    """

    own: float
    job: float


class CpuClock:
    """Measures from when it is made. Looking at other processes takes time itself, which is left out."""

    def __init__(self) -> None:
        self._others = _others_seconds()
        self._own = time.process_time()

    def elapsed(self) -> CpuSeconds:
        """Return what was spent since."""
        own = time.process_time() - self._own
        return CpuSeconds(own, own + _others_seconds() - self._others)


def seconds_of(process: int) -> float:
    """Return the CPU time of a process and all that descend from it; what has ended counts if it was waited for."""
    stats = dict(_stats())
    return sum(stats[each].seconds for each in (process, *_descendants(process, stats)) if each in stats)


def _others_seconds() -> float:
    """Return the CPU time of all processes that descend from this one."""
    # What ends moves from the one sum to the other.
    ended, stats = resource.getrusage(resource.RUSAGE_CHILDREN), dict(_stats())
    living = sum(stats[each].seconds for each in _descendants(os.getpid(), stats))
    return ended.ru_utime + ended.ru_stime + living


class _Stat(NamedTuple):
    parent: int
    seconds: float
    """Its own, and that of its children which it has waited for."""


def _stats() -> Iterator[tuple[int, _Stat]]:
    """Yield every process that is there, as the kernel's proc(5) has it."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                text = (folder / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            fields = text.rpartition(")")[2].split()  # the name before it may have blanks
            yield int(folder.name), _Stat(int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)


def _descendants(process: int, stats: dict[int, _Stat]) -> Iterator[int]:
    children = defaultdict(list)
    for each, stat in stats.items():
        children[stat.parent].append(each)
    found = list(children[process])
    while found:
        each = found.pop()
        found += children[each]
        yield each
