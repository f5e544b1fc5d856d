"""How the cells of a CSV or TSV file are written, where that is not as usual."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """What is said of a file, each None where nothing is: then the file's name, or its first bytes, tell.

    :param delimiter: the character between two cells.
    :param quotechar: the character around cells that hold others' marks; empty if there is none, and a quote is text.
    :param escapechar: the character that makes the one behind it text.
    :param encoding: the name of the text's encoding, as :mod:`codecs` spells it.
    :param column_names: the columns of a file whose first record is a row already; empty if it is the header.
    """

    delimiter: str | None = None
    quotechar: str | None = None
    escapechar: str | None = None
    encoding: str | None = None
    column_names: tuple[str, ...] = ()


USUAL = Dialect()
