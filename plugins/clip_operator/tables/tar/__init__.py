"""WebDataset's tars, read only: what becomes of them is the table of their rows, without the images."""

from __future__ import annotations

from typing import Any, NoReturn

from clip_operator.tables.table import TableReader
from clip_operator.tables.tar.reader import TarReader


def open_reader(*given: Any) -> TableReader:
    """Open a tar, or several as one table."""
    *others, pair = given
    return TarReader(*others, pair=pair)


def create_writer(*_: object) -> NoReturn:
    """Refuse, for nothing becomes a tar."""
    raise TypeError("a TarReader reads what no step is written as")


create_selection = create_writer
