"""Data sets for :func:`clip_operator.evaluate`: rows of ``image_path`` and ``text`` over kept pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.captions import captions

_SEED = 11


@dataclass(frozen=True)
class Dataset:
    """A JSONL file whose image paths are relative to its folder."""

    path: Path
    rows: Sequence[tuple[str, str]]
    """Image path and caption."""

    def first(self, count: int) -> list[tuple[str, str]]:
        """Return the images' absolute paths and the captions of the first rows."""
        return [(str(self.path.parent / image), text) for image, text in self.rows[:count]]


def write_dataset(
    data: Path, name: str, images: Sequence[str], captions_each: int = 1, shuffle: bool = False
) -> Dataset:
    """Write ``data/name.jsonl``; every caption is another.

    :param images: paths relative to ``data``.
    :param captions_each: rows to an image, one after another.
    :param shuffle: spread them over the whole data set.
    """
    paths = [image for image in images for _ in range(captions_each)]
    rows = list(zip(paths, captions(len(paths), _SEED), strict=True))
    if shuffle:
        rows = [rows[i] for i in np.random.default_rng(_SEED).permutation(len(rows))]
    path = data / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"image_path": image, "text": text}) + "\n" for image, text in rows))
    return Dataset(path, rows)


def read_scores(path: Path) -> list[float]:
    """Return the scores in an output; every row must have one."""
    scores = [json.loads(line)["clip_score"] for line in path.read_text().splitlines()]
    if None in scores:
        raise RuntimeError(f"{scores.count(None)} rows of {path} have no score, so their cost was not measured")
    return scores


def largest_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the largest difference between two rows' scores."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))
