"""Local files that are written: whole or not at all, and a full disk in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_operator.machine.disk import no_room
from clip_operator.storage.objects import StorageError


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


@contextmanager
def filling(path: Path, *, anew: bool = False) -> Iterator[Callable[[bytes | memoryview, int], None]]:
    """Give what puts bytes at a place in the file ``path``, which is made if there is none.

    It may be called by several threads at the same time.

    :param anew: the file is emptied first; else what it has in other places stays.
    :raises StorageError: the file cannot be written, with the reason.
    """
    descriptor, flags = -1, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC

    def put(data: bytes | memoryview, position: int) -> None:
        done = 0
        while done < len(data):  # a disk that fills up takes a part of it first
            done += os.pwrite(descriptor, data[done:], position + done)

    try:
        with writing_to(path):
            descriptor = os.open(path, flags | (os.O_TRUNC if anew else 0), 0o666)
            yield put
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
