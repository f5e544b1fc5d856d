"""Which rows share an image. Their scores are no independent observations, so statistics keep them together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clip_operator.proof.manifest import GROUPS, HASH_BITS, LEAST_HASHES

# Of an image inside its row: enough to tell it from others, and no reason to read all of it.
_END_BYTES = 1024


def image_hashes(references: Sequence[object]) -> NDArray[np.int64]:
    """Return a number for each image reference, the same for those that are spelled the same.

    :returns: int64 [references], each as good as random in [0, 2^53).
    """
    digests = b"".join(hashlib.blake2b(_told_by(each), digest_size=8).digest() for each in references)
    hashes: NDArray[np.int64] = (np.frombuffer(digests, "<u8") >> np.uint64(64 - HASH_BITS)).astype(np.int64)
    return hashes


def _told_by(reference: object) -> bytes:
    if isinstance(reference, list | tuple):
        return b"\n".join(map(_told_by, reference))
    if isinstance(reference, Mapping):
        reference = reference.get("bytes") or reference.get("path")
    if not isinstance(reference, str | bytes | bytearray | memoryview):
        reference = repr(reference)
    if len(reference) > 2 * _END_BYTES:
        return b"%d" % len(reference) + _as_bytes(reference[:_END_BYTES]) + _as_bytes(reference[-_END_BYTES:])
    return _as_bytes(reference)


def _as_bytes(part: str | bytes | bytearray | memoryview) -> bytes:
    return part.encode(errors="surrogatepass") if isinstance(part, str) else bytes(part)


def group_of(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group of each image, by its hash: int64, of the same shape, from 0 to 31."""
    return hashes % GROUPS


class DistinctImages:
    """Counts different images in little memory: exactly up to 128, then to some 9 %.

    It keeps the smallest hashes: Bar-Yossef et al., *Counting Distinct Elements in a Data Stream*, RANDOM 2002.
    """

    def __init__(self) -> None:
        self._least: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, hashes: NDArray[np.int64]) -> None:
        """Count the images of these hashes: int64 [images]."""
        if len(self._least) == LEAST_HASHES:
            hashes = hashes[hashes < self._least[-1]]
        if len(hashes):
            self._least = np.unique(np.concatenate([self._least, hashes]))[:LEAST_HASHES]

    @property
    def least(self) -> list[int]:
        """What :meth:`add` needs to count the same images once more, beside others."""
        return [int(each) for each in self._least]

    def count(self) -> int:
        """Return how many there are."""
        if len(self._least) < LEAST_HASHES:
            return len(self._least)
        return int((LEAST_HASHES - 1) * 2**HASH_BITS / int(self._least[-1]))
