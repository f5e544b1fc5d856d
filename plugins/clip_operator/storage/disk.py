"""Local files that are written: whole or not at all, and a full disk in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_operator.disk import no_room
from clip_operator.storage.backend import StorageError


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Say in words that there is no room for ``path``; other errors pass as they are.

    :raises StorageError: the disk is full, or what else keeps more bytes from it.
    """
    try:
        yield
    except OSError as error:
        problem = no_room(error)
        if problem is None:
            raise
        raise StorageError(f"cannot write to {path.parent}: {problem}") from None


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
