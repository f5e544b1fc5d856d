"""Where a part of a table lies in the whole: whether anything comes before it and behind it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fragment:
    """The place of some consecutive rows in a table that is read, or written, in several parts.

    :param first: no part comes before it, so that it opens what the table opens with: a CSV header, a JSON array's "[".
    :param last: no part comes behind it, so that it closes what is open.
    """

    first: bool = True
    last: bool = True


WHOLE = Fragment()
"""All of a table, or a table of its own."""
