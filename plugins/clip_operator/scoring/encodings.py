"""What is known of each distinct image and text, so that none is encoded twice while it is remembered."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_operator.errors import RowError

# The Python objects around one embedding, and its place in the table, in bytes. Measured with CPython 3.11.
_BYTES_BESIDE_EMBEDDING = 512


@dataclass(eq=False, slots=True)
class Encoding:
    """One distinct image or text: its embedding, or the reason why it has none, or (yet) neither.

    :param key: what tells it from others; 16 bytes.
    :param embedding: float32 [dimensions], of length 1.
    :param error: why it cannot be encoded; said of every row that refers to it.
    :param truncated: the text was longer than the model reads.
    :param unturned: the image's EXIF says that it is to be turned, and it was not.
    :param place: where the cache that remembers it keeps its embedding, float32 [dimensions]; None if none does.
    """

    key: bytes
    embedding: NDArray[np.float32] | None = None
    error: RowError | None = None
    truncated: bool = False
    unturned: bool = False
    place: NDArray[np.float32] | None = None

    @property
    def known(self) -> bool:
        """Whether it has been encoded, or found impossible to encode."""
        return self.embedding is not None or self.error is not None


class EncodingCache:
    """The encodings met last, by content or place, in a bounded number of bytes (least recently used goes first).

    What is forgotten depends on the order of the rows alone and never on time, so that two runs over the same rows
    encode the same batches and give the same bytes. An encoding may be forgotten before it is known: rows that refer to
    it keep it.

    :param capacity: bytes for all encodings together; 0 remembers none.
    :param dimensions: of an embedding.
    """

    def __init__(self, capacity: int, dimensions: int) -> None:
        self._most = capacity // (4 * dimensions + _BYTES_BESIDE_EMBEDDING)
        self._dimensions = dimensions
        self.added = 0
        self.forget_all()

    def forget_all(self) -> None:
        """Remember nothing any more. Rows that refer to an encoding keep it, known or not."""
        self._encodings: OrderedDict[bytes, Encoding] = OrderedDict()
        # One block for all: small arrays that live long would lie between what comes and goes, and keep its memory from
        # being used again. The system provides pages of it as they are written to.
        self._embeddings = np.empty((self._most, self._dimensions), np.float32)

    def get(self, key: bytes) -> Encoding | None:
        """Return the encoding of this key if it is remembered."""
        encoding = self._encodings.get(key)
        if encoding is not None:
            self._encodings.move_to_end(key)
        return encoding

    def add(self, key: bytes) -> Encoding:
        """Return a new encoding, not known yet, and remember it."""
        self.added += 1
        encoding = Encoding(key)
        if self._most > 0:
            used = len(self._encodings)
            encoding.place = self._embeddings[used] if used < self._most else self._forget_one()
            self._encodings[key] = encoding
        return encoding

    def complete(self, encoding: Encoding, embedding: NDArray[np.float32]) -> None:
        """Make an encoding known that :meth:`add` gave.

        :param embedding: float32 [dimensions]; copied, because it may be a row of a batch.
        """
        if encoding.place is None:
            encoding.embedding = embedding.copy()
        else:
            encoding.embedding = encoding.place
            encoding.embedding[:] = embedding

    def _forget_one(self) -> NDArray[np.float32]:
        """Forget what was used longest ago; return the place that becomes free."""
        _, encoding = self._encodings.popitem(last=False)
        place, encoding.place = encoding.place, None
        if encoding.embedding is not None:
            encoding.embedding = encoding.embedding.copy()  # for rows that still refer to it
        assert place is not None
        return place
