"""Scores rows in order and in batches, while the images of the next ones are fetched, and none of them twice."""

from clip_operator.scoring.best import Best, best_of
from clip_operator.scoring.clusters import image_hashes
from clip_operator.scoring.derived import derived_columns
from clip_operator.scoring.keeper import Keeper
from clip_operator.scoring.mismatched import BYTES_A_ROW, NO_PAIRS, PairedRows, are_packed, packed
from clip_operator.scoring.null_distribution import NullDistribution
from clip_operator.scoring.outcomes import Outcomes
from clip_operator.scoring.pairs import RowEmbeddings
from clip_operator.scoring.preparation import ImageSource
from clip_operator.scoring.result import RowResult, written_score
from clip_operator.scoring.rows import Rows
from clip_operator.scoring.scorer import CHUNK_ROWS, Scorer
from clip_operator.scoring.several import MOST_PAIRS, aggregated
from clip_operator.scoring.tally import Tally

__all__ = [
    "BYTES_A_ROW",
    "CHUNK_ROWS",
    "MOST_PAIRS",
    "NO_PAIRS",
    "Best",
    "ImageSource",
    "Keeper",
    "NullDistribution",
    "Outcomes",
    "PairedRows",
    "RowEmbeddings",
    "RowResult",
    "Rows",
    "Scorer",
    "Tally",
    "aggregated",
    "are_packed",
    "best_of",
    "derived_columns",
    "image_hashes",
    "packed",
    "written_score",
]
