"""WebDataset's tars, read only: what becomes of them is the table of their rows, without the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from clip_operator.tables.table import TableReader
from clip_operator.tables.tar.reader import TarReader

open_reader: Callable[..., TableReader] = TarReader


def create_writer(*_: object) -> NoReturn:
    """Refuse, for nothing becomes a tar."""
    raise TypeError("a TarReader reads what no step is written as")


create_selection = create_writer
