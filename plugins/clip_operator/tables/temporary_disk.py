"""What the disk for temporary files says when it takes no more, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.machine.disk import no_room


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Guard a block that does nothing but write to ``path``, or create or complete it.

    :raises JobError: in place of every ``OSError``.
    """
    try:
        yield
    except OSError as error:
        problem = no_room(error) or error.strerror or error
        raise JobError(f"cannot write temporary files to {path.parent}: {problem}") from error
