"""Consecutive rows on their way through the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from clip_operator.scoring.result import RowResult

ContentT = TypeVar("ContentT")


@dataclass(frozen=True, slots=True)
class Rows(Generic[ContentT]):
    """Some rows to score, as many as the reader gives at a time.

    :param content: whatever the caller calls them; it comes back with their results.
    :param references: their image references, one a row.
    :param texts: their texts, one a row.
    :param known: results that an earlier try has left, one a row, None where there is none; or None if there are none.
    :param ends_segment: nothing of these rows or earlier ones takes part in the scoring of later ones, so that scoring
        can begin anew behind them with the same result to the last bit.
    :param size: bytes that they take in memory, roughly.
    """

    content: ContentT
    references: Sequence[object]
    texts: Sequence[object]
    known: Sequence[RowResult | None] | None = None
    ends_segment: bool = False
    size: int = 0
