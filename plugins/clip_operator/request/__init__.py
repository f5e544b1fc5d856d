"""The one thing that crosses from the Airflow side to the scoring side: what to score, how, and where to put it."""

from clip_operator.request.error_budget import ErrorBudget, Excess
from clip_operator.request.request import (
    OF_ALL_SCORES,
    EvaluationRequest,
    Requester,
    Shard,
    decides_output,
    parse_request,
)
from clip_operator.request.row_filter import LIMITS, RowFilter
from clip_operator.request.values import (
    Aggregate,
    EmbeddingsType,
    Encoding,
    ImageOrientation,
    OnError,
    Precision,
    names_in,
    structure_in,
)

__all__ = [
    "LIMITS",
    "OF_ALL_SCORES",
    "Aggregate",
    "EmbeddingsType",
    "Encoding",
    "ErrorBudget",
    "EvaluationRequest",
    "Excess",
    "ImageOrientation",
    "OnError",
    "Precision",
    "Requester",
    "RowFilter",
    "Shard",
    "decides_output",
    "names_in",
    "parse_request",
    "structure_in",
]
