"""What a disk says when it takes no more, in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clip_operator.errors import JobError

_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file there may not be that large",
}


def no_room(error: OSError) -> str | None:
    """Return what a person should know and do if a file could not be written for want of room; None otherwise."""
    problem = _NO_ROOM.get(error.errno or 0)
    return None if problem is None else f"{problem}; make room there, or let TMPDIR name a folder on a larger disk"


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Explain errors in a block that does nothing but write to ``path``, or create or complete it.

    :raises JobError: in place of every ``OSError``.
    """
    try:
        yield
    except OSError as error:
        problem = no_room(error) or error.strerror or error
        raise JobError(f"cannot write temporary files to {path.parent}: {problem}") from error
