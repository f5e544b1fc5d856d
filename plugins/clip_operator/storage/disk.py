"""Local files that are written: whole or not at all, and a full disk in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_operator.machine.disk import no_room
from clip_operator.machine.stopping import check_not_stopped
from clip_operator.storage.objects import StorageError


@contextmanager
def writing_to(path: Path, name: str | None = None) -> Iterator[None]:
    """Explain errors in a block that does nothing but write to ``path``, or create or complete it.

    :param name: what is written, for a person; the path by default.
    :raises StorageError: in place of every ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise _no_room(path, error) or StorageError(f"cannot write {name or path}: {error.strerror or error}") from None


@contextmanager
def receiving(path: Path) -> Iterator[None]:
    """Leave no file at ``path`` if what is done there fails; other errors than a full disk pass as they are.

    :raises StorageError: there is no room for the file.
    """
    try:
        yield
    except BaseException as error:  # also a signal
        with suppress(OSError):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError) and (full := _no_room(path, error)):
            raise full from None
        raise


def _no_room(path: Path, error: OSError) -> StorageError | None:
    problem = no_room(error)
    return None if problem is None else StorageError(f"cannot write to {path.parent}: {problem}")


@contextmanager
def filling(path: Path, *, anew: bool = False) -> Iterator[Callable[[bytes | memoryview, int], None]]:
    """Give what puts bytes at a place in the file ``path``, which is made if there is none.

    It may be called by several threads at the same time, and looks whether the work was told to stop.

    :param anew: the file is emptied first; else what it has in other places stays.
    :raises StorageError: the file cannot be written, with the reason.
    """
    descriptor, flags = -1, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC

    def put(data: bytes | memoryview, position: int) -> None:
        check_not_stopped()
        done = 0
        while done < len(data):  # a disk that fills up takes a part of it first
            done += os.pwrite(descriptor, data[done:], position + done)

    try:
        with writing_to(path):
            descriptor = os.open(path, flags | (os.O_TRUNC if anew else 0), 0o666)
            yield put
    finally:
        if descriptor >= 0:
            os.close(descriptor)
