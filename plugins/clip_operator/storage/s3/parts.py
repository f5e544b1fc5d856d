"""How large objects are cut into parts, and how a few threads work through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

P = TypeVar("P")
T = TypeVar("T")

PART_BYTES = 8 << 20
THREADS = 4
MAX_PARTS = 10_000  # S3's own limit, as are the two that follow
LEAST_PART_BYTES = 5 << 20
MOST_PART_BYTES = 5 << 30

# Where the size is not known beforehand: with parts of a 1,390th of what was sent before, 10,000 make 5 TiB.
_GROWTH = 1_390


@dataclass(frozen=True)
class Part:
    """A span of an object's bytes.

    :param number: counted from 1, as S3 does.
    :param start: its first byte.
    :param length: its length in bytes.
    """

    number: int
    start: int
    length: int


def parts_of(size: int) -> list[Part]:
    """Return the parts of an object of ``size`` bytes: none if it is empty, and no more than S3 allows."""
    length = max(PART_BYTES, -(-size // MAX_PARTS))
    starts = range(0, size, length)
    return [Part(number, start, min(length, size - start)) for number, start in enumerate(starts, start=1)]


def next_part_bytes(sent: int) -> int:
    """Return how large the next part is of an object that ends who knows where, after ``sent`` bytes of it."""
    return max(PART_BYTES, -(-sent // _GROWTH))


def in_threads(work: Callable[[P], T], parts: Sequence[P]) -> list[T]:
    """Return what ``work`` returns for each part, in their order; after its first failure begin no more of them."""
    if len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="s3-part") as threads:
        try:
            return list(threads.map(work, parts))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
