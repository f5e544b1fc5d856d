"""The original's algorithm, written plainly: a row at a time, a batch of one, texts padded to the maximum."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from benchmarks.contestant import Answer, Reply, Settings, serve


def load(settings: Settings) -> Answer:
    """Load the model as transformers does by default; torch keeps its default threads.

    :param settings: ``model``, the checkpoint's folder.
    """
    model = CLIPModel.from_pretrained(settings["model"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    image_processor = AutoImageProcessor.from_pretrained(settings["model"], backend="pil")

    @torch.no_grad()
    def score(path: str, text: str) -> float:
        image = Image.open(path).convert("RGB")
        pixels = image_processor(images=image, return_tensors="pt")
        tokens = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt")
        image_embedding = model.get_image_features(**pixels).pooler_output
        text_embedding = model.get_text_features(**tokens).pooler_output
        image_embedding = image_embedding / image_embedding.norm(dim=-1, keepdim=True)
        text_embedding = text_embedding / text_embedding.norm(dim=-1, keepdim=True)
        return float((((image_embedding * text_embedding).sum() + 1) / 2).item())

    def scores(rows: list[tuple[str, str]]) -> Iterator[float]:
        for path, text in rows:
            yield score(path, text)

    def answer(request: Settings) -> Reply:
        """Score ``rows``, pairs of an image's path and a caption."""
        began = time.perf_counter()
        found = list(scores(request["rows"]))
        seconds = time.perf_counter() - began
        return {"rows_per_second": len(found) / seconds, "scores": found}

    return answer


if __name__ == "__main__":
    serve(load)
