"""How much memory decoding some Parquet may take, held by the kernel whatever footers and pages say."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATM = Path("/proc/self/statm")

# What 64 MiB of rows, or one row of 256 MiB, take with the page that they are in and what Arrow makes of them.
_FLOOR_BYTES = 1 << 30
_TIMES_THE_FILE = 3

MEBIBYTES = _FLOOR_BYTES >> 20


@contextmanager
def memory_held(file_bytes: int) -> Iterator[None]:
    """Let this process take only so much more memory inside: beyond it allocations fail, or the process ends.

    Where the kernel has no such limit (macOS has none), none is set.

    :param file_bytes: of the file, those that are decoded, which are held as they are and may hold no less.
    """
    if not _STATM.exists():
        yield
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    now = int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft = now + _FLOOR_BYTES + _TIMES_THE_FILE * file_bytes
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
