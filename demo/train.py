"""Trains shapes-clip, the tiny CLIP that the demo and the tests use, from scratch on a CPU.

    python -m demo.train --output DIR --minutes 35 --seed 7

Every batch is drawn anew, so no scene is seen twice. Scenes come in twins that differ in one attribute: a
model that only counts colours cannot tell them apart. Which caption is true of which picture is computed from
the scenes themselves, so a caption that also holds for another scene of the batch is never taught as wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from demo.measure import measure
from demo.scenes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    Description,
    Scene,
    caption,
    change_one_attribute,
    describe,
    draw,
    sample_scene,
    wording,
)

_PIXELS = 64
_PATCH = 8
_MAX_TOKENS = 32
_EMBEDDING = 128
_TWINS = 128
"""Pairs of scenes to a batch."""
_PEAK_LEARNING_RATE = 1.2e-3
_WARMUP_STEPS = 200
_CHECK_SECONDS = 120
_CHECK_SEED = 10_000_019


@dataclass(frozen=True)
class Batch:
    """Twin scenes (rows 2k and 2k+1 differ in one attribute), a caption each, and what is true of what."""

    pixels: torch.Tensor
    """(rows, 3, 64, 64) float32, normalised."""
    tokens: dict[str, torch.Tensor]
    truth: torch.Tensor
    """(rows, rows) bool: whether the caption of the column holds for the picture of the row."""
    patch_shapes: torch.Tensor
    """(rows, 64) int64: the shape under each patch, 0 for none."""
    patch_colours: torch.Tensor
    """(rows, 64) int64: the colour under each patch, things' colours before the backgrounds'."""


# --- tokenizer and model --------------------------------------------------------------------------------


def make_processor(rng: random.Random) -> CLIPProcessor:
    """Train the tokenizer on captions and join it with the image processor.

    The vocabulary holds every byte, in and at the end of a word, so that any Unicode text has tokens.
    """
    byte_level = pre_tokenizers.ByteLevel.alphabet()
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    learner.train_from_iterator(
        (caption(sample_scene(rng), rng) for _ in range(20_000)),
        trainers.BpeTrainer(
            vocab_size=1000, end_of_word_suffix="</w>", initial_alphabet=byte_level, show_progress=False
        ),
    )
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(byte_level)
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_MAX_TOKENS)
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": _PIXELS}, crop_size={"height": _PIXELS, "width": _PIXELS}
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP of about 0.9 million parameters with random weights, pooling at the tokenizer's end token."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": _MAX_TOKENS,
        "projection_dim": _EMBEDDING,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": _PIXELS,
        "patch_size": _PATCH,
        "projection_dim": _EMBEDDING,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=_EMBEDDING))


# --- batches --------------------------------------------------------------------------------------------


def batches(processor: CLIPProcessor, seed: int) -> Iterator[Batch]:
    """Endless fresh batches, fixed by the seed."""
    rng = random.Random(seed)
    while True:
        scenes = []
        for _ in range(_TWINS):
            scene = sample_scene(rng)
            scenes += [scene, change_one_attribute(scene, rng)]
        descriptions = [describe(scene, rng) for scene in scenes]
        tokens = processor.tokenizer(
            [wording(description, rng) for description in descriptions],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        shapes, colours = patch_labels(scenes)
        yield Batch(
            pixels=_pixels(scenes, rng),
            tokens=dict(tokens),
            truth=torch.from_numpy(truth_table(scenes, descriptions)),
            patch_shapes=shapes,
            patch_colours=colours,
        )


def _pixels(scenes: list[Scene], rng: random.Random) -> torch.Tensor:
    """Drawn at several sizes and resized as the image processor does, for the model to know its resampling."""
    pictures = []
    for scene in scenes:
        picture = draw(scene, rng.choice((64, 96, 128, 160)))
        pictures.append(np.asarray(picture.resize((_PIXELS, _PIXELS), Image.Resampling.BICUBIC)))
    pixels = torch.from_numpy(np.stack(pictures)).float() / 255
    normalised = (pixels - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)
    return normalised.permute(0, 3, 1, 2).contiguous()


def truth_table(scenes: list[Scene], descriptions: list[Description]) -> npt.NDArray[np.bool_]:
    """Which description holds for which scene, shape (scenes, descriptions)."""
    return np.array([[description.holds(scene) for description in descriptions] for scene in scenes])


def patch_labels(scenes: list[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """The shape and the colour under the middle of every patch, each (scenes, patches) int64."""
    grid = (np.arange(_PIXELS // _PATCH) + 0.5) * _PATCH / _PIXELS
    across, down = (axis.reshape(-1) for axis in np.meshgrid(grid, grid))
    shapes = np.zeros((len(scenes), across.size), dtype=np.int64)
    colours = np.zeros_like(shapes)
    colour_names, background_names = list(COLOURS), list(BACKGROUNDS)
    for row, scene in enumerate(scenes):
        colours[row] = len(colour_names) + background_names.index(scene.background)
        for thing in scene.things:
            covered = np.hypot(across - thing.x, down - thing.y) < thing.radius
            shapes[row, covered] = 1 + SHAPES.index(thing.shape)
            colours[row, covered] = colour_names.index(thing.colour)
    return torch.from_numpy(shapes), torch.from_numpy(colours)


# --- objective ------------------------------------------------------------------------------------------


class Objective(nn.Module):
    """What training minimises: CLIP's contrastive loss, and helpers that the saved model does not keep.

    The sigmoid loss (Zhai et al., 2023, arXiv:2303.15343) asks for one threshold that fits all pairs, which is
    what the AUC measures; the patch heads teach the vision tower shapes and colours long before captions could.
    """

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model
        width = model.config.vision_config.hidden_size
        self.shape_head = nn.Linear(width, 1 + len(SHAPES))
        self.colour_head = nn.Linear(width, len(COLOURS) + len(BACKGROUNDS))
        self.log_slope = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def forward(self, batch: Batch, patch_weight: float) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        seen = self.model.vision_model(pixel_values=batch.pixels)
        read = self.model.text_model(**batch.tokens)
        images = functional.normalize(self.model.visual_projection(seen.pooler_output), dim=-1)
        texts = functional.normalize(self.model.text_projection(read.pooler_output), dim=-1)
        cosines = images @ texts.T
        return (
            _contrastive(cosines * self.model.logit_scale.exp(), batch.truth)
            + self._sigmoid(cosines, batch.truth)
            + patch_weight * self._patches(seen.last_hidden_state[:, 1:], batch)
        )

    def _sigmoid(self, cosines: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        logits = cosines * self.log_slope.exp() + self.bias
        losses = functional.softplus(torch.where(truth, -logits, logits))
        rows = torch.arange(len(truth))
        twins = losses[rows, rows ^ 1]
        return losses.sum() / len(truth) + twins.mean()

    def _patches(self, states: torch.Tensor, batch: Batch) -> torch.Tensor:
        states = states.flatten(0, 1)
        shapes = functional.cross_entropy(self.shape_head(states), batch.patch_shapes.flatten())
        colours = functional.cross_entropy(self.colour_head(states), batch.patch_colours.flatten())
        return shapes + colours


def _contrastive(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy, where another caption that is true as well is no rival."""
    own = torch.eye(len(truth), dtype=torch.bool)
    rivals = logits.masked_fill(truth & ~own, -torch.inf)
    target = torch.arange(len(truth))
    return (functional.cross_entropy(rivals, target) + functional.cross_entropy(rivals.T, target)) / 2


# --- training -------------------------------------------------------------------------------------------


def train(output: Path, minutes: float, seed: int) -> None:
    """Train for `minutes` of wall clock; write the model folder at checkpoints on the way and at the end."""
    torch.manual_seed(seed)
    processor = make_processor(random.Random(seed))
    # Before its first use: afterwards the tokenizer would save the padding and truncation last asked of it.
    processor.tokenizer.save_pretrained(output)
    processor.image_processor.save_pretrained(output)
    model = make_model(processor.tokenizer)
    objective = Objective(model)
    matrices = [weight for weight in objective.parameters() if weight.ndim > 1]
    others = [weight for weight in objective.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    started = checked = time.monotonic()
    for step, batch in enumerate(batches(processor, seed)):
        now = time.monotonic()
        progress = (now - started) / (60 * minutes)
        if progress >= 1:
            break
        if now - checked > _CHECK_SECONDS:
            checked = now
            _check(model, processor, output, step, progress)
        objective.train()
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, progress)
        optimizer.zero_grad()
        loss = objective(batch, patch_weight=1 - progress)
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        if step % 50 == 0:
            print(f"step {step}  {progress:.1%}  loss {loss.item():.3f}", flush=True)
    _check(model, processor, output, step, progress)


def _learning_rate(step: int, progress: float) -> float:
    """Linear warm-up over steps, then a cosine down to nothing over the time given."""
    warm = min(1.0, (step + 1) / _WARMUP_STEPS)
    return _PEAK_LEARNING_RATE * warm * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def _check(model: Any, processor: CLIPProcessor, output: Path, step: int, progress: float) -> None:
    """Write the model as it stands, so that a run cut short leaves a usable one, and say how good it is."""
    model.save_pretrained(output)
    found = asdict(measure(model, processor, pairs=500, seed=_CHECK_SEED))
    print(json.dumps({"step": step, "progress": round(progress, 3), **found}), flush=True)


def main() -> None:
    """Train as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.train", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--minutes", type=float, default=35, help="wall-clock time to train for")
    parser.add_argument("--seed", type=int, default=7, help="seed of weights, tokenizer and scenes")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    train(asked.output, asked.minutes, asked.seed)


if __name__ == "__main__":
    main()
