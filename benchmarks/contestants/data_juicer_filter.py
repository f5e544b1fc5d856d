"""data-juicer's image_text_similarity_filter: a row at a time, in one process."""

from __future__ import annotations

import statistics
import time

from data_juicer.core.data import NestedDataset
from data_juicer.ops.filter.image_text_similarity_filter import (
    ImageTextSimilarityFilter,
)
from data_juicer.utils.constant import Fields, StatsKeys
from data_juicer.utils.mm_utils import SpecialTokens

from benchmarks.contestant import Answer, Reply, Settings, serve


def load(settings: Settings) -> Answer:
    """Make the operator, which keeps its model once it has loaded it.

    :param settings: ``model``; ``warm_up``, pairs of an image's path and a caption.
    """
    # More processes would each load the model within the time that is measured.
    similarity = ImageTextSimilarityFilter(hf_clip=settings["model"], min_score=-1.0, num_proc=1, accelerator="cpu")

    def score(rows: list[tuple[str, str]]) -> list[float]:
        samples = [{"images": [path], "text": f"{SpecialTokens.image}{text}{SpecialTokens.eoc}"} for path, text in rows]
        done = similarity.run(NestedDataset.from_list(samples))
        return [(row[Fields.stats][StatsKeys.image_text_similarity][0] + 1) / 2 for row in done.to_list()]

    score(settings["warm_up"])

    def answer(request: Settings) -> Reply:
        """Score ``rows``, pairs of an image's path and a caption."""
        began = time.perf_counter()
        scores = score(request["rows"])
        return {
            "rows_per_second": len(scores) / (time.perf_counter() - began),
            "mean_score": statistics.fmean(scores),
        }

    return answer


if __name__ == "__main__":
    serve(load)
