"""The image tower, run in several ways: milliseconds an image, and how far the embeddings and scores move."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.captions import captions
from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant, ContestantFailed
from benchmarks.photos import VGA, photos
from benchmarks.record import NOT_MEASURED, Record, Table, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 3
_REFERENCE = "transformers"
_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_WAYS = {
    _REFERENCE: "transformers, batches of 32, torch's threads",
    "fp32": "this package, fp32",
    "bf16": "this package, bf16",
    "compiled": "transformers with torch.compile",
}


def run(bench: Workbench) -> Record:
    """Encode the same pictures in each way, in turn, each in its own warm process."""
    checkpoint = vit_b_32(bench.data)
    # The largest batches, too, come out even in the lanes.
    images, rounds = bench.pick(2 * max(_BATCH_SIZES) * (os.cpu_count() or 1), 8), bench.pick(ROUNDS, 1)
    names = [str(bench.data / name) for name in photos(bench.data, images, VGA)]
    record = Record("forward", {"images": images, "rounds": rounds, "model": checkpoint.name})
    with ExitStack() as stack:
        towers = {}
        for way in _WAYS:
            why_not = _why_not(way, bench.quick)
            if why_not is None:
                settings = {"model": str(checkpoint), "images": names, "way": way}
                try:
                    towers[way] = stack.enter_context(Contestant("image_tower", settings, bench.log(f"forward-{way}")))
                except ContestantFailed as error:
                    why_not = f"it failed: {str(error).strip().splitlines()[-1]}"
            if why_not is not None:
                record.not_measured.append(f"{_WAYS[way]}: {why_not}")
        found = alternate(
            {way: partial(tower.ask, embeddings=str(_embeddings(bench, way))) for way, tower in towers.items()}, rounds
        )
        sizes = alternate(
            {
                str(size): partial(towers["fp32"].ask, embeddings=str(_embeddings(bench, "sizes")), batch_size=size)
                for size in _BATCH_SIZES
            },
            rounds,
        )
    reference, texts = np.load(_embeddings(bench, _REFERENCE)), _text_embeddings(checkpoint, images)
    times = {way: [reply["milliseconds_an_image"] for reply in replies] for way, replies in found.items()}
    rows = []
    for way, title in _WAYS.items():
        if way not in times:
            rows.append([title, NOT_MEASURED, "", "", ""])
            continue
        embeddings = np.load(_embeddings(bench, way))
        deviation = float(np.abs(embeddings - reference).max())
        score_deviation = float(np.abs(((embeddings - reference) * texts).sum(axis=1)).max() / 2)
        faster = ratios(times[_REFERENCE], times[way])
        rows.append([title, spread(times[way]), spread(faster, 2), f"{deviation:.1e}", f"{score_deviation:.1e}"])
        record.measurements[way] = {
            "milliseconds_an_image": times[way],
            "largest_embedding_deviation": deviation,
            "largest_score_deviation": score_deviation,
        }
    columns = ["", "ms an image", "times as fast", "largest embedding deviation", "largest score deviation"]
    record.tables.append(Table("The image tower, deviations from plain transformers in fp32", columns, rows))
    record.measurements["milliseconds_an_image_by_batch_size"] = by_size = {
        size: [reply["milliseconds_an_image"] for reply in replies] for size, replies in sizes.items()
    }
    rows = [[size, spread(milliseconds)] for size, milliseconds in by_size.items()]
    record.tables.append(Table("Images that go together, this package in fp32", ["batch", "ms an image"], rows))
    return record


def _embeddings(bench: Workbench, way: str) -> Path:
    return bench.scratch / f"embeddings-{way}.npy"


def _text_embeddings(checkpoint: Path, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return the embeddings of a caption for each image: scores are said of pairs."""
    import torch
    from transformers import AutoTokenizer, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokens = AutoTokenizer.from_pretrained(checkpoint)(captions(count, seed=3), padding=True, return_tensors="pt")
    with torch.inference_mode():
        embeddings = CLIPModel.from_pretrained(checkpoint).eval().get_text_features(**tokens).pooler_output
    normalised: np.ndarray[tuple[int, int], np.dtype[np.float32]] = torch.nn.functional.normalize(embeddings).numpy()
    return normalised


def _why_not(way: str, quick: bool) -> str | None:
    """Return why a way cannot be run here."""
    if way != "compiled":
        return None
    if quick:
        return "compiling takes too long for a trial"
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"torch.compile needs a C++ compiler, and there is no {compiler}"
