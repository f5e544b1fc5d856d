"""This package with a device that computes at once: whole evaluations, but for what the model computes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from benchmarks.contestant import Answer, Settings, serve
from benchmarks.contestants import evaluation
from clip_operator.model import ClipEncoder

_EMBEDDINGS = 16_384
"""Different ones, so that those of neighbouring rows are: what is alike makes no mismatched pairs."""


def load(settings: Settings) -> Answer:
    """Make ready to evaluate with an encoder whose embeddings are there at once. It tokenizes and preprocesses as ever.

    :param settings: as in :mod:`benchmarks.contestants.evaluation`.
    """
    for seed, name in enumerate(("encode_images", "encode_texts")):
        setattr(ClipEncoder, name, _at_once(seed))
    return evaluation.load(settings)


def _at_once(seed: int) -> Callable[[ClipEncoder, Sequence[Any]], torch.Tensor]:
    """Return a method of an encoder: inputs → float32 [inputs, dimensions], rows of length 1, from a table."""
    batches = itertools.count()  # taken from many threads

    def encode(encoder: ClipEncoder, inputs: Sequence[Any]) -> torch.Tensor:
        start = next(batches) * len(inputs) % (_EMBEDDINGS - len(inputs))
        return _random(encoder.dimensions, seed)[start : start + len(inputs)]

    return encode


@cache
def _random(dimensions: int, seed: int) -> torch.Tensor:
    values = torch.randn(_EMBEDDINGS, dimensions, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


if __name__ == "__main__":
    serve(load)
