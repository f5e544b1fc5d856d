"""Scores rows in order and in batches, while the images of the next ones are being fetched."""

from clip_operator.scoring.outcomes import Outcomes
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.scorer import Scorer
from clip_operator.scoring.tally import Tally

__all__ = ["Outcomes", "RowResult", "Scorer", "Tally"]
