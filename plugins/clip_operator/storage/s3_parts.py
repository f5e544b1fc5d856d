"""How large objects are cut into parts, and how a few threads work through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

PART_BYTES = 8 << 20
_MAX_PARTS = 10_000  # S3's own limit
_THREADS = 4


@dataclass(frozen=True)
class Part:
    """A stretch of an object's bytes.

    :param number: counted from 1, as S3 does.
    :param start: its first byte.
    :param length: its length in bytes.
    """

    number: int
    start: int
    length: int


def parts_of(size: int) -> list[Part]:
    """Return the parts of an object of ``size`` bytes: none if it is empty, and no more than S3 allows."""
    length = max(PART_BYTES, -(-size // _MAX_PARTS))
    starts = range(0, size, length)
    return [Part(number, start, min(length, size - start)) for number, start in enumerate(starts, start=1)]


def in_threads(work: Callable[[Part], T], parts: Sequence[Part]) -> list[T]:
    """Return what ``work`` returns for each part, in their order; after its first failure begin no more of them."""
    if len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3-part") as threads:
        try:
            return list(threads.map(work, parts))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
