"""Scores rows in order and in batches, while the images of the next ones are fetched, and none of them twice."""

from clip_operator.scoring.calibration import describe_calibration
from clip_operator.scoring.derived import derived_columns
from clip_operator.scoring.null_distribution import NullDistribution
from clip_operator.scoring.outcomes import Outcomes
from clip_operator.scoring.result import RowResult, written_score
from clip_operator.scoring.rows import Rows
from clip_operator.scoring.scorer import CHUNK_ROWS, Scorer
from clip_operator.scoring.tally import Tally

__all__ = [
    "CHUNK_ROWS",
    "NullDistribution",
    "Outcomes",
    "RowResult",
    "Rows",
    "Scorer",
    "Tally",
    "derived_columns",
    "describe_calibration",
    "written_score",
]
