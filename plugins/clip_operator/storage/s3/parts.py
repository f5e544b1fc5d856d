"""How large the parts of large objects are, and how many of them are under way at the same time."""

from __future__ import annotations

from typing import NamedTuple

PART_BYTES = 8 << 20
THREADS = 4
MAX_PARTS = 10_000  # S3's own limit, as are the two that follow
LEAST_PART_BYTES = 5 << 20
MOST_PART_BYTES = 5 << 30

# Where the size is not known beforehand: with parts of a 1,390th of what was sent before, 10,000 make 5 TiB.
_GROWTH = 1_390


class ByteRange(NamedTuple):
    """Some of an object's bytes.

    :param start: the first of them.
    :param length: how many they are.
    """

    start: int
    length: int


def ranges_of(size: int) -> list[ByteRange]:
    """Return the ranges of the parts of ``size`` bytes: none if there are no bytes, and no more than S3 allows."""
    length = max(PART_BYTES, -(-size // MAX_PARTS))
    return [ByteRange(start, min(length, size - start)) for start in range(0, size, length)]


def next_part_bytes(sent: int) -> int:
    """Return how large the next part is of an object that ends who knows where, after ``sent`` bytes of it."""
    return max(PART_BYTES, -(-sent // _GROWTH))
