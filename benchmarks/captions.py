"""Captions of made-up words, as long as COCO's, and the words themselves for a tokenizer to learn."""

from __future__ import annotations

import itertools
import re
from functools import cache

import numpy as np

_WORDS = 60_000
_SHORTEST, _LONGEST = 8, 14
_ONSETS = re.findall(r"\w+", "b bl br c ch d dr f fl g gr h j k l m n p pr qu r s sh st t tr v w z")
_VOWELS = re.findall(r"\w+", "a e i o u ai ea oo ou")
_ENDS = ["", "n", "r", "s", "t", "ck"]


def captions(count: int, seed: int) -> list[str]:
    """Return ``count`` captions of 8 to 14 words. The same seed gives the same captions.

    With the tokenizer of :mod:`benchmarks.checkpoints` they have some 10 to 18 tokens, the two special ones included,
    as those of COCO have with CLIP's.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(_SHORTEST, _LONGEST, size=count, endpoint=True)
    ranks = np.searchsorted(_cumulative_frequencies(), rng.random(int(lengths.sum())))
    ends = np.cumsum(lengths)
    names = words()
    return [
        " ".join(names[rank] for rank in ranks[end - length : end]) for end, length in zip(ends, lengths, strict=True)
    ]


@cache
def words() -> list[str]:
    """Return the distinct words that captions are made of, the most frequent, which are short, first."""
    syllables = ["".join(parts) for parts in itertools.product(_ONSETS, _VOWELS, _ENDS)]
    rng = np.random.default_rng(1)
    rng.shuffle(syllables)
    known: dict[str, None] = dict.fromkeys(syllables)
    while len(known) < _WORDS:
        parts = int(rng.integers(2, 3, endpoint=True))
        known.setdefault("".join(syllables[i] for i in rng.integers(len(syllables), size=parts)))
    return list(known)


@cache
def _cumulative_frequencies() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Zipf's law: a word's frequency goes as one over its rank."""
    cumulative = np.cumsum(1 / np.arange(1, _WORDS + 1))
    shares: np.ndarray[tuple[int], np.dtype[np.float64]] = cumulative / cumulative[-1]
    return shares
