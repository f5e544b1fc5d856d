"""The score of a pair, from its embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def alignment(images: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (cos + 1) / 2 for each pair of rows.

    :param images: float32 [pairs, dimensions], rows of length 1.
    :param texts: float32 [pairs, dimensions], rows of length 1.
    :returns: float32 [pairs], within [0, 1].
    """
    return to_unit_interval((images * texts).sum(axis=-1))


def to_unit_interval(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (cos + 1) / 2, of the same shape.

    The formula of DataFlow's ``ImageCLIPEvaluator``: the cosine of CLIP embeddings, mapped from [-1, 1] to [0, 1].
    """
    scores: NDArray[np.float32] = np.clip((cosines + np.float32(1)) / np.float32(2), np.float32(0), np.float32(1))
    return scores
