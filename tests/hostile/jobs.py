"""Whole evaluations of hostile data, through the public door, and what plain Pillow and transformers say of it."""

from __future__ import annotations

import io
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from clip_operator import model
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import parse_request
from clip_operator.storage import Storage
from tests.conftest import SHAPES

SECONDS = 60
"""What no test of this folder comes near to, also on a busy machine."""


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Raise TimeoutError inside the block when it takes longer. For the main thread."""

    def too_late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(
    source: Path, target: Path, stop: threading.Event | None = None, seconds: int = SECONDS, **fields: Any
) -> EvaluationManifest:
    """Score a table, however many of its rows fail.

    :param seconds: how long that may take, also on a busy machine.
    """
    defaults = {"input": str(source), "output": str(target), "model": SHAPES, "max_error_rate": 1}
    with time_limit(seconds):
        return evaluate(parse_request({**defaults, **fields}), stop=stop)


def score_rows(folder: Path, rows: list[dict[str, Any]], name: str, **fields: Any) -> list[dict[str, Any]]:
    """Score rows; return them with ``clip_score`` and ``why``, after a look that all else is as it was."""
    source, target = folder / f"{name}.jsonl", folder / f"{name}_step1.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(source, target, error_key="why", **fields)
    # Not splitlines, which ends lines at characters that captions may hold.
    before, after = (path.read_text().removesuffix("\n").split("\n") for path in (source, target))
    assert len(after) == len(before)
    scored = [json.loads(line) for line in after]
    for old, new, row in zip(before, after, scored, strict=True):
        added = f', "clip_score": {json.dumps(row["clip_score"])}, "why": {json.dumps(row["why"])}}}'
        assert new == old[:-1] + added
        assert (row["clip_score"] is None) != (row["why"] is None)
    return scored


def plain_score(image: Image.Image, text: str) -> float:
    """Return the score that transformers alone gives a pair, one by one."""
    plain, processor = _plain()
    inputs = processor(
        text=[text], images=image, padding="max_length", truncation=True, max_length=32, return_tensors="pt"
    )
    with torch.no_grad():
        output = plain(**inputs)
    return (float((output.image_embeds * output.text_embeds).sum()) + 1) / 2


def plain_image(data: bytes) -> Image.Image:
    """Return the image of a file as Pillow alone gives it, or raise what Pillow raises."""
    return Image.open(io.BytesIO(data)).convert("RGB")


@cache
def _plain() -> tuple[Any, Any]:
    folder = model.find_checkpoint(SHAPES, None, Storage()).path
    return CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
