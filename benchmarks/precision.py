"""How far scores move in half precision: on the CPU, whose bf16 and fp16 round as a GPU's do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant
from benchmarks.dataset import Dataset, read_scores, write_dataset
from benchmarks.photos import VGA, photos
from benchmarks.record import Record, Table
from benchmarks.scenes import write_scenes
from benchmarks.workbench import Workbench

_SHAPES = "builtin://shapes-clip"
_SIZE = (64, 64)
_PRECISIONS = ("bf16", "fp16")


def run(bench: Workbench) -> Record:
    """Score the same rows in each precision, with the shipped model and with random weights of ViT-B/32's size."""
    # Without instructions for it, a CPU takes ten times as long in fp16: few rows, and no rates.
    pairs, scenes = bench.pick(64, 4), bench.pick(1000, 8)
    checkpoint = vit_b_32(bench.data)
    models = {
        _SHAPES: ("builtin://shapes-clip, drawn scenes", write_scenes(bench.data, scenes, _SIZE, "png")),
        str(checkpoint): (
            "ViT-B/32 with random weights, photos",
            write_dataset(bench.data, f"unique-pairs-{pairs}", photos(bench.data, pairs, VGA)),
        ),
    }
    record = Record("precision", {"pairs": pairs, "scenes": scenes, "model": checkpoint.name})
    rows = []
    for model, (title, dataset) in models.items():
        exact = _scores(bench, model, dataset, "fp32")
        for precision in _PRECISIONS:
            moved = np.abs(_scores(bench, model, dataset, precision) - exact)
            largest, mean, spread = float(moved.max()), float(moved.mean()), float(exact.std())
            rows.append([title, precision, str(len(exact)), f"{largest:.1e}", f"{mean:.1e}", f"{spread:.3f}"])
            record.measurements[f"{title}, {precision}"] = {"largest": largest, "mean": mean}
    columns = ["", "precision", "rows", "largest deviation", "mean deviation", "standard deviation of the scores"]
    record.tables.append(Table("Scores, against the same in fp32", columns, rows))
    return record


def _scores(bench: Workbench, model: str, dataset: Dataset, precision: str) -> NDArray[np.float64]:
    output = bench.scratch / f"precision-{precision}.jsonl"
    request = {"device": "cpu", "model": model, "precision": precision}
    with Contestant("evaluation", {"request": request}, bench.log(f"precision-{precision}")) as ours:
        ours.ask(input=str(dataset.path), output=str(output))
    return np.array(read_scores(output))
