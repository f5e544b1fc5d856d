"""Local files that are written: whole or not at all, and a full disk in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_operator.storage.backend import StorageError

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this disk or this process may have",
}


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Say in words that there is no room for ``path``; other errors pass as they are.

    :raises StorageError: the disk is full, or what else keeps more bytes from it.
    """
    try:
        yield
    except OSError as error:
        reason = _FULL.get(error.errno or 0)
        if reason is None:
            raise
        raise StorageError(
            f"cannot write to {path.parent}: {reason}; make room, or set TMPDIR to a larger disk for temporary files"
        ) from None


@contextmanager
def receiving(path: Path) -> Iterator[None]:
    """Do as :func:`writing_to`, and leave no file at ``path`` if what is done there fails."""
    try:
        with writing_to(path):
            yield
    except BaseException:  # also a signal
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise
