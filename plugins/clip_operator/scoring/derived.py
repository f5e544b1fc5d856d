"""The columns beside the score, which follow from the results of single rows."""

from __future__ import annotations

from collections.abc import Sequence

from clip_operator.request import EvaluationRequest
from clip_operator.scoring.result import RowResult


def derived_columns(
    request: EvaluationRequest, results: Sequence[RowResult]
) -> dict[str, Sequence[float | str | None]]:
    """Return the values of the columns that a request adds beside the score, but for the percentile.

    A row without a score has none of them but its reason, also where its score is written as zero.
    """
    values: dict[str, Sequence[float | str | None]] = {}
    if request.error_key is not None:
        values[request.error_key] = [result.error.reason.value if result.error else None for result in results]
    if request.cosine_key is not None:
        values[request.cosine_key] = [None if r.score is None else cosine(r.score) for r in results]
    if request.clipscore_key is not None:
        values[request.clipscore_key] = [None if r.score is None else clipscore(r.score) for r in results]
    if request.sentence_key is not None and request.sentence_score_key is not None:
        least = [result.least or (None, None) for result in results]
        values[request.sentence_key] = [sentence for sentence, _ in least]
        values[request.sentence_score_key] = [score for _, score in least]
    return values


def cosine(score: float) -> float:
    """Return the cosine that a score (cos + 1) / 2 was made of, in [-1, 1], to the seven digits that it knows."""
    return round(2 * score - 1, 7)


def clipscore(score: float) -> float:
    """Return the CLIPScore, 2.5 * max(cos, 0), in [0, 2.5].

    After Hessel et al., *CLIPScore: A Reference-free Evaluation Metric for Image Captioning*, EMNLP 2021. They put "A
    photo depicts" before every caption; here captions are scored as they are.
    """
    return round(2.5 * max(cosine(score), 0.0), 7)
