"""A folder on the local disk for one job's copies of its input and output."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "clip-operator-job-"
_LOCK = "lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is gone afterwards, and remove those of jobs that were killed before they could.

    They would fill the disk of a worker that runs for months. Each is locked as long as its job lives, and a lock goes
    with the process that holds it, however that ends.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    while True:
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, (Path(name) / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock.fileno()).st_nlink:  # else another job has met it before it was locked, and removed it
                yield Path(name)
                return


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        # A folder that has no lock yet was made a moment ago. What another user has put there under such a name is not
        # ours to remove, nor to follow: it may lead to any folder.
        with suppress(OSError):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                with (folder / _LOCK).open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
