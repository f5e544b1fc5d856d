"""The best of many scores, found exactly in memory that does not grow with them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_BATCH = 1 << 18  # scores that are looked at together: 2 MiB

# Numbers of 64 bits are told apart by so many at a time, from the highest on.
_DIGIT_BITS = 16
_SHIFTS = (48, 32, 16, 0)


@dataclass(frozen=True)
class Best:
    """The best rows of all: those that score more than ``score``, and of those that score just that the first few.

    :param score: the lowest score among them.
    :param ties: how many rows with this score are among them, at least one.
    """

    score: float
    ties: int


def best_of(share: float, scores: Iterable[float], scratch: Path) -> Best | None:
    """Return which rows the best share of them are, rounded up to whole rows; None where there are none at all.

    A share is the decimal number that is written: 0.07 of 100 rows are 7.

    :param scores: of all rows, from 0 to 1.
    :param scratch: where a file may be for a while, 8 bytes a row.
    """
    try:
        rows = _write(scores, scratch)
        wanted = math.ceil(Fraction(repr(share)) * rows)
        return _highest(wanted, scratch) if wanted else None
    finally:
        scratch.unlink(missing_ok=True)


def _write(scores: Iterable[float], path: Path) -> int:
    """Write the scores to a file; return how many there are."""
    rows, batch = 0, array("d")
    with path.open("wb") as file:
        for score in scores:
            batch.append(score + 0.0)  # which makes 0.0 of -0.0
            if len(batch) == _BATCH:
                batch.tofile(file)
                rows, batch = rows + len(batch), array("d")
        batch.tofile(file)
    return rows + len(batch)


def _highest(wanted: int, path: Path) -> Best:
    """Return which rows are the highest so many of a file, at most all.

    Numbers from 0 on are in the order of their bits, taken for whole numbers. So their digits, of 16 bits, are counted:
    first all numbers' highest ones, which tells in which of them the last wanted number is; then of those that begin
    with it the next, until the whole number is known.
    """
    known, missing = 0, wanted
    for shift in _SHIFTS:
        counts = np.zeros(1 << _DIGIT_BITS, np.int64)
        for bits in _batches(path):
            leading = bits >> np.uint64(shift)
            digits = leading[leading >> np.uint64(_DIGIT_BITS) == known] & np.uint64(len(counts) - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=len(counts))
        from_the_top = np.cumsum(counts[::-1])
        index = int(np.searchsorted(from_the_top, missing))
        digit = len(counts) - 1 - index
        missing -= int(from_the_top[index] - counts[digit])
        known = known << _DIGIT_BITS | digit
    return Best(float(np.uint64(known).view(np.float64)), missing)


def _batches(path: Path) -> Iterator[NDArray[np.uint64]]:
    with path.open("rb") as file:
        while len(bits := np.fromfile(file, np.uint64, _BATCH)):
            yield bits
