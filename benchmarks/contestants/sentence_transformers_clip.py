"""sentence-transformers' CLIP: encodes images and texts in batches; the cosine of each pair is ours to take."""

from __future__ import annotations

import time

from PIL import Image
from sentence_transformers import SentenceTransformer, util

from benchmarks.contestant import Answer, Reply, Settings, serve


def load(settings: Settings) -> Answer:
    """Load a local checkpoint.

    :param settings: ``model``, ``batch_size``.
    """
    model = SentenceTransformer(settings["model"], device="cpu")

    def answer(request: Settings) -> Reply:
        """Score ``rows``, pairs of an image's path and a caption."""
        rows, size = request["rows"], settings["batch_size"]
        began = time.perf_counter()
        # Opened here and decoded in each batch, as its documentation does it.
        images = model.encode([Image.open(path) for path, _ in rows], batch_size=size, convert_to_tensor=True)
        texts = model.encode([text for _, text in rows], batch_size=size, convert_to_tensor=True)
        scores = (util.pairwise_cos_sim(images, texts) + 1) / 2
        seconds = time.perf_counter() - began
        return {"rows_per_second": len(rows) / seconds, "mean_score": float(scores.mean())}

    return answer


if __name__ == "__main__":
    serve(load)
