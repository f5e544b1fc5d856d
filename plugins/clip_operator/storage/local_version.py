"""Which version of a local file it is."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")


def etag_of(status: os.stat_result) -> str:
    """Return what changes with the file's content, and when another file takes its place.

    Times of modification do not suffice: ``tar`` and ``cp -p`` set them to those of the file that they copy. The time
    of change nobody can set. It is as coarse as the kernel's clock, some milliseconds, within which inodes tell files
    apart.
    """
    inode = 0 if _numbers_files_anew(status.st_dev) else status.st_ino
    return f"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{inode:x}-{status.st_size:x}"


@lru_cache(maxsize=64)
def _numbers_files_anew(device: int) -> bool:
    """Tell whether a file's inode may be another in the next mount: so it is in user space (FUSE), as with buckets."""
    try:
        mounts = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(line.split()[2] == number and line.partition(" - ")[2].startswith("fuse") for line in mounts)
