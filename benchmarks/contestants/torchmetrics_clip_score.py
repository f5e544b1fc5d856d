"""torchmetrics' CLIPScore: batches of images as tensors, decoded by Pillow as its users do; it returns a mean only."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchmetrics.multimodal import CLIPScore
from transformers import CLIPModel, CLIPProcessor

from benchmarks.contestant import Answer, Reply, Settings, serve


def load(settings: Settings) -> Answer:
    """Make the metric with a local checkpoint.

    :param settings: ``model``, ``batch_size``.
    """
    folder, size = settings["model"], settings["batch_size"]

    def parts() -> tuple[Any, Any]:
        return CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)

    metric = CLIPScore(model_name_or_path=parts)

    def answer(request: Settings) -> Reply:
        """Score ``rows``, pairs of an image's path and a caption."""
        rows = request["rows"]
        metric.reset()
        began = time.perf_counter()
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            metric.update([_tensor(path) for path, _ in batch], [text for _, text in batch])
        mean = float(metric.compute())
        return {"rows_per_second": len(rows) / (time.perf_counter() - began), "mean_score": (mean / 100 + 1) / 2}

    return answer


def _tensor(path: str) -> torch.Tensor:
    """Return an image as uint8 [3, height, width]."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


if __name__ == "__main__":
    serve(load)
