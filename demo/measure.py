"""Measures how well a CLIP model folder tells true captions of shapes from false ones.

Usage: `python -m demo.measure`, or with `--model DIR` for another folder than the shipped one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoModel, AutoProcessor

from demo.scenes import caption, draw, mismatched_caption, nearly_right_caption, sample_scene

SHIPPED_MODEL = Path(__file__).parents[1] / "plugins/clip_operator/model/builtin/shapes-clip"
FRESH_SEED = 20_000_003
"""Seed of the measured scenes. Training draws from other seeds, so it never saw these."""

_PICTURE_PIXELS = 192
_BATCH = 250

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """AUC of right against wrong captions, and mean scores `(cos + 1) / 2`, over fresh scenes."""

    scenes: int
    auc_mismatched: float
    """Against captions of other scenes."""
    auc_nearly_right: float
    """Against captions with one attribute changed."""
    paired_nearly_right: float
    """Share of pictures whose right caption scores above their nearly right one."""
    mean_matched: float
    mean_mismatched: float
    mean_nearly_right: float


def measure(model: Any, processor: Any, *, pairs: int = 2000, seed: int = FRESH_SEED) -> Measurement:
    """Score `pairs` fresh scenes against a right, a mismatched and a nearly right caption each.

    :param model: a CLIP-family model, as `AutoModel` loads it.
    :param processor: its processor, as `AutoProcessor` loads it.
    """
    rng = random.Random(seed)
    scenes = [sample_scene(rng) for _ in range(pairs)]
    writers = (caption, mismatched_caption, nearly_right_caption)
    captions = [[write(scene, rng) for scene in scenes] for write in writers]
    pictures = [draw(scene, _PICTURE_PIXELS) for scene in scenes]
    matched, mismatched, nearly_right = score_kinds(model, processor, pictures, captions)
    return Measurement(
        scenes=pairs,
        auc_mismatched=area_under_curve(matched, mismatched),
        auc_nearly_right=area_under_curve(matched, nearly_right),
        paired_nearly_right=float((matched > nearly_right).mean()),
        mean_matched=float(matched.mean()),
        mean_mismatched=float(mismatched.mean()),
        mean_nearly_right=float(nearly_right.mean()),
    )


@torch.inference_mode()
def score_kinds(
    model: Any, processor: Any, pictures: Sequence[Image.Image], kinds: Sequence[Sequence[str]]
) -> list[Scores]:
    """Score every picture against its caption in each of the lists `kinds`; each picture is encoded once.

    :return: for each list, the scores `(cos + 1) / 2`, shape (pictures,).
    """
    model.eval()
    scores: list[list[torch.Tensor]] = [[] for _ in kinds]
    for start in range(0, len(pictures), _BATCH):
        chunk = slice(start, start + _BATCH)
        pixels = processor(images=list(pictures[chunk]), return_tensors="pt")["pixel_values"]
        images = _unit(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))
        for captions, found in zip(kinds, scores, strict=True):
            tokens = processor(text=list(captions[chunk]), padding=True, truncation=True, return_tensors="pt")
            texts = _unit(model.text_projection(model.text_model(**tokens).pooler_output))
            found.append(((images * texts).sum(dim=-1) + 1) / 2)
    return [torch.cat(found).double().numpy() for found in scores]


def _unit(embeddings: torch.Tensor) -> torch.Tensor:
    return functional.normalize(embeddings, dim=-1)


def area_under_curve(right: Scores, wrong: Scores) -> float:
    """Probability that a right pair outscores a wrong one; ties count half (the Mann-Whitney statistic)."""
    ordered = np.sort(wrong)
    below = np.searchsorted(ordered, right, side="left")
    not_above = np.searchsorted(ordered, right, side="right")
    return float((below + not_above).sum() / (2 * len(right) * len(wrong)))


def main() -> None:
    """Print the measurement of a model folder as JSON."""
    parser = argparse.ArgumentParser(prog="python -m demo.measure", description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL, help="folder of the model")
    parser.add_argument("--pairs", type=int, default=2000, help="number of fresh scenes")
    parser.add_argument("--seed", type=int, default=FRESH_SEED, help="seed of the scenes")
    asked = parser.parse_args()
    model = AutoModel.from_pretrained(asked.model, local_files_only=True)
    processor = AutoProcessor.from_pretrained(asked.model, local_files_only=True)
    print(json.dumps(asdict(measure(model, processor, pairs=asked.pairs, seed=asked.seed)), indent=2))


if __name__ == "__main__":
    main()
