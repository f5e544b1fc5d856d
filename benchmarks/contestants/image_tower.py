"""The image tower alone, run in one of several ways on pictures that are preprocessed already."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPModel

from benchmarks.contestant import Answer, Reply, Settings, serve
from clip_operator.model import choose_device, find_checkpoint, load_encoder
from clip_operator.request import Precision
from clip_operator.storage import Storage

_BATCH = 32

Tower = Callable[[int | None], torch.Tensor]
"""Encodes all pictures, in batches of a size if one is given; returns their embeddings, [pictures, dimensions]."""


def load(settings: Settings) -> Answer:
    """Load the model.

    :param settings: ``model``; ``images``, paths; ``way``: ``transformers``, ``compiled``, ``fp32`` or ``bf16``.
    """
    pictures = [Image.open(path).convert("RGB") for path in settings["images"]]
    way: str = settings["way"]
    tower = _package(settings["model"], pictures, "bf16" if way == "bf16" else "fp32")
    if way in ("transformers", "compiled"):
        tower = _transformers(settings["model"], pictures, compiled=way == "compiled")
    tower(None)  # warms up, and compiles

    def answer(request: Settings) -> Reply:
        """Encode the pictures once, in batches of ``batch_size``; write their embeddings to ``embeddings``."""
        began = time.perf_counter()
        embeddings = tower(request.get("batch_size"))
        seconds = time.perf_counter() - began
        np.save(Path(request["embeddings"]), torch.nn.functional.normalize(embeddings.float(), dim=-1).numpy())
        return {"milliseconds_an_image": 1000 * seconds / len(pictures)}

    return answer


def _package(folder: str, pictures: Sequence[Image.Image], precision: Precision) -> Tower:
    """The package's encoder, in its own lanes and, if no other size is given, its own batches."""
    encoder = load_encoder(find_checkpoint(folder, None, Storage()), choose_device("cpu"), precision)
    pixels = [encoder.preprocess(picture) for picture in pictures]
    chosen = encoder.image_batch

    def tower(batch_size: int | None) -> torch.Tensor:
        size = batch_size or chosen
        batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        with encoder.lane_pool() as lanes:
            return torch.cat(list(lanes.map(encoder.encode_images, batches)))

    return tower


def _transformers(folder: str, pictures: Sequence[Image.Image], compiled: bool) -> Tower:
    """Plain transformers in batches of 32, with torch's default threads."""
    model = CLIPModel.from_pretrained(folder).eval()
    image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
    vision: Any = torch.compile(model.vision_model) if compiled else model.vision_model

    @torch.inference_mode()
    def tower(batch_size: int | None) -> torch.Tensor:
        pooled = [vision(pixel_values=batch).pooler_output for batch in pixels.split(batch_size or _BATCH)]
        embeddings: torch.Tensor = model.visual_projection(torch.cat(pooled))
        return embeddings

    return tower


if __name__ == "__main__":
    serve(load)
