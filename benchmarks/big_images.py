"""Large images: where the CPU's time goes, and what decoding JPEGs at a reduced size gains and changes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant, Reply
from benchmarks.dataset import Dataset, largest_difference, read_scores, write_dataset
from benchmarks.photos import SQUARE, TWELVE_MEGAPIXELS, photos
from benchmarks.record import Record, Table, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.scenes import write_scenes
from benchmarks.workbench import Workbench

ROUNDS = 3
_SHAPES = "builtin://shapes-clip"
_DECODINGS = ("full", "reduced")


def run(bench: Workbench) -> Record:
    """Evaluate 12-megapixel JPEGs and 1024 x 1024 PNGs with both ways of decoding, in turn."""
    checkpoint = vit_b_32(bench.data)
    images, rounds = bench.pick(32, 3), bench.pick(ROUNDS, 1)
    kinds = {
        "12-megapixel JPEG": photos(bench.data, images, TWELVE_MEGAPIXELS),
        "1024 x 1024 PNG": photos(bench.data, images, SQUARE, "png"),
    }
    scenes = write_scenes(bench.data, bench.pick(24, 2), TWELVE_MEGAPIXELS, "jpg")
    record = Record(
        "big_images",
        {"images": images, "scenes": len(scenes.rows), "rounds": rounds, "model": checkpoint.name},
    )
    speeds, changes = [], []
    request = {"device": "cpu", "model": str(checkpoint)}
    with (
        Contestant("evaluation", {"request": request}, bench.log("big-images")) as ours,
        Contestant(
            "stages", {"model": str(checkpoint), "folder": str(bench.data)}, bench.log("big-images-stages")
        ) as stages,
    ):
        for kind, names in kinds.items():
            dataset = write_dataset(bench.data, f"big-{Path(names[0]).parent.name}-{images}", names)
            found, difference = _both_ways(bench, ours, dataset, rounds)
            rates = {way: [reply["rows_per_second"] for reply in found[way]] for way in _DECODINGS}
            costs = {way: stages.ask(images=names, reduced=way == "reduced") for way in _DECODINGS}
            for way in _DECODINGS:
                total = sum(costs[way].values())
                shares = [f"{costs[way][stage] / total:.0%}" for stage in ("decode", "resize", "encode")]
                gain = spread(ratios(rates[way], rates["full"]), 2)
                speeds.append([kind, way, spread(rates[way]), gain, f"{1000 * total / images:.0f}", *shares])
            changes.append([kind, "ViT-B/32 with random weights", str(images), f"{difference:.1e}"])
            record.measurements[kind] = {"rounds": found, "cpu_seconds": costs, "largest_score_change": difference}
    with Contestant(
        "evaluation", {"request": {"device": "cpu", "model": _SHAPES}}, bench.log("big-images-scenes")
    ) as trained:
        found, difference = _both_ways(bench, trained, scenes, rounds=1)
    changes.append(["12-megapixel JPEG of a drawn scene", _SHAPES, str(len(scenes.rows)), f"{difference:.1e}"])
    record.measurements["scenes"] = {"rounds": found, "largest_score_change": difference}
    record.tables = [
        Table(
            "Speed, and the CPU time of an image by stage",
            ["images", "image_decoding", "rows/s", "times as fast", "CPU ms an image", "decode", "resize", "encode"],
            speeds,
        ),
        Table("Largest change of a score, reduced against full", ["images", "model", "rows", "change"], changes),
    ]
    return record


def _both_ways(
    bench: Workbench, ours: Contestant, dataset: Dataset, rounds: int
) -> tuple[dict[str, list[Reply]], float]:
    """Return what each way of decoding measured, and the largest difference between the scores."""
    outputs = {way: bench.scratch / f"big-images-{way}.jsonl" for way in _DECODINGS}

    def evaluate(way: str) -> Reply:
        return ours.ask(input=str(dataset.path), output=str(outputs[way]), image_decoding=way)

    found = alternate({way: partial(evaluate, way) for way in _DECODINGS}, rounds)
    full, reduced = (read_scores(outputs[way]) for way in _DECODINGS)
    return found, largest_difference(full, reduced)
