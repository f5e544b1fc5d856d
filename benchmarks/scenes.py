"""Drawn scenes with captions: what the shipped model builtin://shapes-clip knows."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

from benchmarks.dataset import Dataset
from benchmarks.kept import kept
from demo.scenes import Scene, describe, draw, sample_scene, wording

_SEED = 30_000_001
"""The model was trained and measured on other scenes."""

_FORMATS = {"jpg": "JPEG", "png": "PNG"}


def write_scenes(data: Path, count: int, size: tuple[int, int], suffix: str) -> Dataset:
    """Draw scenes and write their rows; every second has the caption of the one before it.

    :param size: width and height in pixels.
    :param suffix: ``jpg`` (quality 90) or ``png``.
    """
    folder = f"scenes-{size[0]}x{size[1]}-{suffix}"
    images, captions = [], []
    for number in range(count):
        rng = random.Random(_SEED + number)
        scene = sample_scene(rng)
        images.append(f"{folder}/{number:04}.{suffix}")
        kept(data / images[-1], partial(_draw, scene, size, _FORMATS[suffix]))
        captions.append(wording(describe(scene, rng), rng))
    rows = [(image, captions[number - number % 2]) for number, image in enumerate(images)]
    path = data / f"{folder}-{count}.jsonl"
    path.write_text("".join(json.dumps({"image_path": image, "text": text}) + "\n" for image, text in rows))
    return Dataset(path, rows)


def _draw(scene: Scene, size: tuple[int, int], file_format: str, path: Path) -> None:
    draw(scene, size).save(path, file_format, quality=90)  # PNG has no use for the quality
