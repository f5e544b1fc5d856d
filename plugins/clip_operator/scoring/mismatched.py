"""Which rows lend each other their texts, so that it is known what pairs score that do not belong together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Data sets repeat images in rows that stand together, five captions each in COCO: beyond so many in a row that share
# the image or the text, a row goes without.
_CANDIDATES = 16


def partners(images: NDArray[np.uint64], texts: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return for each of some rows the row whose text its image is paired with, or -1 where there is none.

    It is the first of 16 rows, from half the rows further on, whose image and whose text are both other ones. So it
    depends on the rows alone, and two tries over the same rows make the same pairs.

    :param images: the keys of the rows' images: uint64 [rows, 2].
    :param texts: the keys of their texts: uint64 [rows, 2].
    :returns: intp [rows].
    """
    rows = len(images)
    own = np.arange(rows)
    partner = np.full(rows, -1, np.intp)
    for further in range(_CANDIDATES if rows > 1 else 0):
        candidate = (own + rows // 2 + further) % rows
        is_other = (images[candidate] != images).any(axis=1) & (texts[candidate] != texts).any(axis=1)
        found = is_other & (partner < 0)
        partner[found] = candidate[found]
        if (partner >= 0).all():
            break
    return partner
