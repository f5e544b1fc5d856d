"""Trains shapes-clip, the tiny CLIP that the demo and the tests use, from scratch on a CPU.

    python -m demo.train --output DIR --minutes 25 --seed 7

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

from demo.measure import measure
from demo.scenes import (
    COLOURS,
    PLACES,
    RADII,
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
_PATCH = 16
_MAX_TOKENS = 32
_EMBEDDING = 128
_TWINS = 64
"""Pairs of scenes to a batch."""
_NEAR = 0.23
"""Distance at which a thing is seen: it reaches the four patches around its place, and no second place."""
_PEAK_LEARNING_RATE = 1e-3
_WARMUP_STEPS = 200
_LABEL_COUNTS = [1 + len(SHAPES), 1 + len(COLOURS), 1 + len(RADII)]
_CHECK_SECONDS = 120
_CHECK_SEED = 10_000_019


@dataclass(frozen=True)
class Labels:
    """Class numbers, int64, of what is to be seen somewhere; 0 where there is nothing."""

    shapes: torch.Tensor
    colours: torch.Tensor
    sizes: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Twin scenes (rows 2k and 2k+1 differ in one attribute), a caption each, and what is true of what."""

    pixels: torch.Tensor
    """(rows, 3, 64, 64) float32, normalised."""
    tokens: dict[str, torch.Tensor]
    truth: torch.Tensor
    """(rows, rows) bool: whether the caption of the column holds for the picture of the row."""
    patches: Labels
    """What lies under each patch, each field (rows, patches)."""
    places: Labels
    """What stands at each of `PLACES`, each field (rows, places)."""


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
    make_tokenizer: Any = CLIPTokenizer  # its annotation of merges is narrower than what it takes
    tokenizer = make_tokenizer(vocab=vocabulary, merges=merges, model_max_length=_MAX_TOKENS)
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
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=_EMBEDDING))
    positions = model.vision_model.embeddings.position_embedding.weight
    with torch.no_grad():
        positions[1:] = _plane_waves(_PIXELS // _PATCH, positions.shape[1]) / 2
    return model


def _plane_waves(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of a patch's column and row, shape (side * side, width).

    As first values of the position embeddings they let the model tell places apart from the start (Beyer et
    al., 2022, arXiv:2205.01580); the usual small noise takes it thousands of steps to grow out of.
    """
    frequencies = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
    columns, rows = waves.expand(side, -1, -1), waves[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1)


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
        yield Batch(
            pixels=_pixels(scenes, processor.image_processor, rng),
            tokens=dict(tokens),
            truth=torch.from_numpy(truth_table(scenes, descriptions)),
            patches=labels_at(_patch_centres(), scenes),
            places=labels_at(np.array(list(PLACES.values())), scenes),
        )


def _pixels(scenes: list[Scene], image_processor: Any, rng: random.Random) -> torch.Tensor:
    """Draw at several sizes and resize as the image processor does: the model is to know its resampling."""
    pictures = []
    for scene in scenes:
        picture = draw(scene, rng.choice((64, 96, 128, 160)))
        pictures.append(np.asarray(picture.resize((_PIXELS, _PIXELS), Image.Resampling.BICUBIC)))
    pixels = torch.from_numpy(np.stack(pictures)).float() / 255
    mean, spread = torch.tensor(image_processor.image_mean), torch.tensor(image_processor.image_std)
    return ((pixels - mean) / spread).permute(0, 3, 1, 2).contiguous()


def truth_table(scenes: list[Scene], descriptions: list[Description]) -> npt.NDArray[np.bool_]:
    """Which description holds for which scene, shape (scenes, descriptions)."""
    return np.array([[description.holds(scene) for description in descriptions] for scene in scenes])


def labels_at(points: npt.NDArray[np.float64], scenes: list[Scene]) -> Labels:
    """What is to be seen near `points`, (points, 2) fractions of the side: each field (scenes, points)."""
    shapes, colours, sizes = (np.zeros((len(scenes), len(points)), dtype=np.int64) for _ in range(3))
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            near = np.hypot(*(points - (thing.x, thing.y)).T) < _NEAR
            shapes[row, near] = 1 + SHAPES.index(thing.shape)
            colours[row, near] = 1 + list(COLOURS).index(thing.colour)
            sizes[row, near] = 1 + list(RADII).index(thing.size)
    return Labels(torch.from_numpy(shapes), torch.from_numpy(colours), torch.from_numpy(sizes))


def _patch_centres() -> npt.NDArray[np.float64]:
    grid = (np.arange(_PIXELS // _PATCH) + 0.5) * _PATCH / _PIXELS
    return np.stack([axis.reshape(-1) for axis in np.meshgrid(grid, grid)], axis=-1)


# --- objective ------------------------------------------------------------------------------------------


class Objective(nn.Module):
    """What training minimises: CLIP's contrastive loss, and helpers that the saved model does not keep.

    The sigmoid loss (Zhai et al., 2023, arXiv:2303.15343) asks for one threshold that fits all pairs, which
    is what the AUC measures. Two heads name what lies under each patch (from its state) and what stands at
    each place (from the pooled state): they teach the vision tower shapes long before captions could.
    """

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model
        width = model.vision_model.config.hidden_size
        self.patch_head = nn.Linear(width, sum(_LABEL_COUNTS))
        self.place_head = nn.Linear(width, len(PLACES) * sum(_LABEL_COUNTS))
        self.log_slope = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def forward(self, batch: Batch, naming_weight: float) -> torch.Tensor:
        """The loss of a batch, a scalar; `naming_weight` is the weight of the two heads."""
        seen = self.model.vision_model(pixel_values=batch.pixels)
        read = self.model.text_model(**batch.tokens)
        images = functional.normalize(self.model.visual_projection(seen.pooler_output), dim=-1)
        texts = functional.normalize(self.model.text_projection(read.pooler_output), dim=-1)
        cosines = images @ texts.T
        naming = _naming(self.patch_head(seen.last_hidden_state[:, 1:]), batch.patches) + _naming(
            self.place_head(seen.pooler_output).unflatten(-1, (len(PLACES), -1)), batch.places
        )
        contrastive = _contrastive(cosines * self.model.logit_scale.exp(), batch.truth)
        return contrastive + self._sigmoid(cosines, batch.truth) + naming_weight * naming

    def _sigmoid(self, cosines: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The sigmoid loss, with more weight on each picture's hardest caption, its twin's."""
        logits = cosines * self.log_slope.exp() + self.bias
        losses = functional.softplus(torch.where(truth, -logits, logits))
        rows = torch.arange(len(truth))
        twins = losses[rows, rows ^ 1]
        return losses.sum() / len(truth) + 2 * twins.mean()


def _naming(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Cross-entropy of shape, colour and size, from logits (rows, spots, classes of all three)."""
    parts = logits.flatten(0, 1).split(_LABEL_COUNTS, dim=-1)
    named = zip(parts, (labels.shapes, labels.colours, labels.sizes), strict=True)
    losses = [functional.cross_entropy(part, label.flatten()) for part, label in named]
    return torch.stack(losses).sum()


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
    optimizer = _optimizer(objective)
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
        loss = objective(batch, naming_weight=1 - progress)
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        if step % 50 == 0:
            print(f"step {step}  {progress:.1%}  loss {loss.item():.3f}", flush=True)
    _check(model, processor, output, step, progress)


def _optimizer(objective: Objective) -> torch.optim.Optimizer:
    """AdamW that decays matrices only, not biases, norms and scales."""
    matrices = [weight for weight in objective.parameters() if weight.ndim > 1]
    others = [weight for weight in objective.parameters() if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


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
    parser.add_argument("--minutes", type=float, default=25, help="wall-clock time to train for")
    parser.add_argument("--seed", type=int, default=7, help="seed of weights, tokenizer and scenes")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    train(asked.output, asked.minutes, asked.seed)


if __name__ == "__main__":
    main()
