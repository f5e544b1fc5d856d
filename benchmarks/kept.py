"""Data that is drawn once and kept, so that a second run starts at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def kept(path: Path, make: Callable[[Path], None]) -> Path:
    """Return ``path``, made by ``make`` if it is not there. What was left half made is made again.

    :param make: writes a file or a folder to the path that it is given, whose parent exists.
    """
    if path.exists():
        return path
    partial = path.with_name(f"{path.name}.partial")
    if partial.is_dir():
        shutil.rmtree(partial)
    partial.unlink(missing_ok=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    make(partial)
    return partial.rename(path)
