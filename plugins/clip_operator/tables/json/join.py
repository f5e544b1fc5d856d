"""Joins the texts of an array's fragments, of which any may be without rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, Protocol

from clip_operator.tables.json.writers import ARRAY_END, ARRAY_JOINT, ARRAY_START, EMPTY_ARRAY

_BLOCK_BYTES = 1024 * 1024


class BytesTarget(Protocol):
    """Anything that bytes can be written to."""

    def write(self, data: bytes, /) -> object: ...


def join_arrays(sources: Iterable[BinaryIO], target: BytesTarget) -> None:
    """Write one JSON array of the outputs of consecutive fragments: what a single writer would have written.

    To put the outputs one behind the other gives the same, unless the first fragment or the last one has no rows. The
    writer of another one then could not know that it had to open or close the array.

    :param sources: the outputs of a writer to JSON that did not keep the input's layout; empty where there was no row.
    """
    opened = closed = False
    for source in sources:
        start = source.read(len(ARRAY_JOINT))
        if start in (b"", EMPTY_ARRAY.encode()):
            continue
        target.write(start if opened else ARRAY_START.encode())
        opened, end = True, b""
        while block := source.read(_BLOCK_BYTES):
            target.write(block)
            end = (end + block)[-len(ARRAY_END) :]
        closed = end == ARRAY_END.encode()
    if not closed:
        target.write((ARRAY_END if opened else EMPTY_ARRAY).encode())
