"""What a disk says when it takes no more, in words."""

from __future__ import annotations

import errno

_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file there may not be that large",
}


def no_room(error: OSError) -> str | None:
    """Return what a person should know and do if a file could not be written for want of room; None otherwise."""
    problem = _NO_ROOM.get(error.errno or 0)
    return None if problem is None else f"{problem}; make room there, or let TMPDIR name a folder on a larger disk"
