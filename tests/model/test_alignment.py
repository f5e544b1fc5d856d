"""The score is (cos + 1) / 2, within [0, 1]."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_operator.scoring.alignment import alignment


def rows(seed: int, pairs: int, dimensions: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((pairs, dimensions), dtype=np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20), st.sampled_from([1, 2, 16, 512]))
def test_the_score_is_half_of_one_plus_the_cosine(seed: int, pairs: int, dimensions: int) -> None:
    images, texts = rows(seed, pairs, dimensions), rows(seed + 1, pairs, dimensions)
    scores = alignment(images, texts)
    one, other = images.astype(np.float64), texts.astype(np.float64)
    cosine = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    assert scores.dtype == np.float32
    assert scores.shape == (pairs,)
    assert np.abs(scores - (cosine + 1) / 2).max() < 1e-6
    assert ((scores >= 0) & (scores <= 1)).all()


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 16, 512, 768]))
def test_the_same_embedding_scores_one_at_most_and_its_opposite_zero_at_least(seed: int, dimensions: int) -> None:
    """Rounding makes a sum of squares a little more than 1 now and then; the score never is."""
    images = rows(seed, 50, dimensions)
    assert ((alignment(images, images) <= 1) & (alignment(images, images) > 0.999999)).all()
    assert ((alignment(images, -images) >= 0) & (alignment(images, -images) < 0.000001)).all()
