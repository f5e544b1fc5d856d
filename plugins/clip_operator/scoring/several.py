"""Rows with several images or several texts: what becomes of the scores of their pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clip_operator.errors import Reason, RowError
from clip_operator.request import Aggregate

MOST_PAIRS = 100
"""So many pairs of an image and a text a row may have: the embeddings of all of them are in memory together."""


def check_several(images: Sequence[object], texts: Sequence[object], aggregate: Aggregate | None) -> None:
    """Raise :class:`RowError` unless a row with these images and texts has pairs, and a rule for their scores.

    One image and one text need no rule.
    """
    if not texts:
        raise RowError(Reason.TEXT_MISSING, "the list of captions is empty")
    if not images:
        raise RowError(Reason.IMAGE_MISSING, "the list of images is empty")
    pairs = len(images) * len(texts)
    reason = Reason.TEXT_INVALID if len(images) == 1 else Reason.IMAGE_UNREADABLE
    if pairs > 1 and aggregate is None:
        raise RowError(
            reason,
            f"the row has {_counted(images, 'image')} and {_counted(texts, 'caption')}; say in aggregate which score "
            "that gives: mean, max or min of its pairs, or all",
        )
    if pairs > MOST_PAIRS:
        raise RowError(
            reason,
            f"the row's {_counted(images, 'image')} and {_counted(texts, 'caption')} make {pairs:,} pairs, more than "
            f"the {MOST_PAIRS} that are scored together",
        )


def aggregated(scores: Sequence[float], aggregate: Aggregate | None) -> float:
    """Return the one score of a row whose pairs have these, all in [0, 1]; where all are asked for, their mean."""
    if len(scores) == 1:
        return scores[0]
    if aggregate in ("max", "min"):
        return max(scores) if aggregate == "max" else min(scores)
    return float(str(np.float32(np.mean(scores))))


def of_item(error: RowError, what: str, number: int, items: int) -> RowError:
    """Return an error of one item as the row's: of several, it says which it is, from 1."""
    if items == 1:
        return error
    image = number - 1 if what == "image" else None
    return RowError(error.reason, f"{what} {number:,} of {items:,}: {error.detail}", image)


def _counted(items: Sequence[object], what: str) -> str:
    return f"{len(items):,} {what}{'' if len(items) == 1 else 's'}"
