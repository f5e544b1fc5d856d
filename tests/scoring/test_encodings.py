"""What is remembered stays right whatever is forgotten, and takes no more than its share of memory."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_operator.scoring.encodings import Encoding, EncodingCache

DIMENSIONS = 4
BYTES_OF_ONE = 4 * DIMENSIONS + 512


def embedding(number: int) -> NDArray[np.float32]:
    return np.full(DIMENSIONS, number, np.float32)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    wanted=st.lists(st.integers(0, 9), max_size=60), room=st.integers(0, 12), late=st.lists(st.booleans(), min_size=60)
)
def test_every_encoding_keeps_its_own_embedding_whenever_it_becomes_known(
    wanted: list[int], room: int, late: list[bool]
) -> None:
    """Also one that was forgotten, before it was known or after: rows that were read earlier still refer to it."""
    cache = EncodingCache(room * BYTES_OF_ONE, DIMENSIONS)
    remembered: OrderedDict[int, Encoding] = OrderedDict()
    handed_out: list[tuple[int, Encoding]] = []
    unknown: list[tuple[int, Encoding]] = []
    for number, wait in zip(wanted, late, strict=False):
        encoding = cache.get(bytes([number]))
        assert encoding is remembered.get(number)
        if encoding is None:
            encoding = cache.add(bytes([number]))
            unknown.append((number, encoding))
        remembered[number] = encoding
        remembered.move_to_end(number)
        while len(remembered) > room:
            remembered.popitem(last=False)
        handed_out.append((number, encoding))
        while unknown and not wait:
            late_number, late_encoding = unknown.pop(0)
            cache.complete(late_encoding, embedding(late_number))
    for number, encoding in unknown:
        cache.complete(encoding, embedding(number))
    for number, encoding in handed_out:
        assert encoding.embedding is not None
        assert (encoding.embedding == number).all()


def test_a_batch_is_not_kept_for_the_sake_of_one_of_its_rows() -> None:
    cache = EncodingCache(BYTES_OF_ONE, DIMENSIONS)
    batch = np.stack([embedding(1), embedding(2)])
    encodings = [cache.add(b"a"), cache.add(b"b")]
    for encoding, row in zip(encodings, batch, strict=True):
        cache.complete(encoding, row)
    batch[:] = 0
    assert [float(e.embedding[0]) for e in encodings if e.embedding is not None] == [1, 2]
