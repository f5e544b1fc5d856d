"""On a GPU: rows a second from JPEGs, how busy the GPU is, and how near the rate is to the slower of its two limits.

And how many rows a second a job could feed there to a GPU that computes at once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import feeding
from benchmarks.checkpoints import tiny, vit_b_32, vit_l_14
from benchmarks.contestant import Contestant, Reply
from benchmarks.dataset import Dataset, write_dataset
from benchmarks.machine import gpu
from benchmarks.photos import VGA, photos
from benchmarks.record import NOT_MEASURED, Record, Table, median, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 3
_MODELS: dict[str, Callable[[Path], Path]] = {"ViT-B/32": vit_b_32, "ViT-L/14": vit_l_14}
_PRECISIONS = ("fp32", "fp16")
_SAMPLE_MILLISECONDS = 100


def run(bench: Workbench) -> Record:
    """Evaluate with both models, beside the forward passes alone and decoding alone, if there is a CUDA device."""
    if not _cuda():
        why = "no CUDA device" if gpu() is None else "there is a GPU, and torch is not built for it"
        return Record("gpu", {}, not_measured=[why])
    images, rows = bench.pick(2048, 64), bench.pick(8192, 128)
    return measure(bench, "cuda", images, rows, bench.pick(ROUNDS, 1), _MODELS)


def measure(
    bench: Workbench, device: str, images: int, rows: int, rounds: int, models: dict[str, Callable[[Path], Path]]
) -> Record:
    """Measure models on a device.

    :param rows: repeat the images, so that a run is long enough; every row's image is encoded all the same.
    """
    names = photos(bench.data, images, VGA)
    dataset = write_dataset(bench.data, f"repeated-{images}-{rows}", [names[i % images] for i in range(rows)])
    record = Record("gpu", {"images": images, "rows": rows, "rounds": rounds, "image": VGA, "device": device})
    decoding = _decoding(bench, [str(bench.data / name) for name in names], rounds)
    record.measurements["decoding_images_per_second"] = decoding
    table = []
    for model, checkpoint_of in models.items():
        checkpoint = checkpoint_of(bench.data)
        for precision in _PRECISIONS:
            found = _model(bench, device, checkpoint, precision, dataset, images, rounds)
            rates = [reply["rows_per_second"] for reply in found["end to end"]]
            forward = [reply["rows_per_second"] for reply in found["forward alone"]]
            limits = [min(rate, median(decoding)) for rate in forward]
            busy = [reply["gpu_busy"] for reply in found["end to end"] if reply["gpu_busy"] is not None]
            table.append(
                [
                    f"{model}, {precision}",
                    spread(rates, 0),
                    f"{median(busy):.0%}" if busy else NOT_MEASURED,
                    spread(forward, 0),
                    spread(decoding, 0),
                    spread(ratios(rates, limits), 2),
                ]
            )
            record.measurements[f"{model}, {precision}"] = found
    columns = [
        "",
        "rows/s",
        "GPU busy",
        "forward alone, rows/s",
        f"decoding alone on {os.cpu_count()} cores, images/s",
        "of the slower limit",
    ]
    record.tables.append(Table("640 x 480 JPEGs and captions", columns, table))
    print("  feeding", flush=True)
    feeding.measure(bench, device, [each for each in feeding.SCENARIOS if each.place != feeding.FAR], record)
    return record


def _model(
    bench: Workbench, device: str, checkpoint: Path, precision: str, dataset: Dataset, images: int, rounds: int
) -> dict[str, list[Reply]]:
    request = {"model": str(checkpoint), "device": device, "precision": precision, "embedding_cache_bytes": 0}
    bare: dict[str, Any] = {
        "model": str(checkpoint),
        "device": device,
        "precision": precision,
        "rows": dataset.first(images),
    }
    output = str(bench.scratch / "gpu-scored.jsonl")
    with (
        Contestant("evaluation", {"request": request}, bench.log("gpu-evaluation")) as ours,
        Contestant("bare_forward", bare, bench.log("gpu-forward")) as forward,
    ):
        return alternate(
            {
                "end to end": partial(_evaluate, ours, str(dataset.path), output),
                "forward alone": forward.ask,
            },
            rounds,
        )


def _evaluate(ours: Contestant, path: str, output: str) -> Reply:
    with _watched() as samples:
        reply = ours.ask(input=path, output=output)
    # The scoring phase is the end of the evaluation; before it the model is loaded.
    scoring = samples[-max(1, round(1000 * reply["seconds"] / _SAMPLE_MILLISECONDS)) :]
    return {**reply, "gpu_busy": statistics.fmean(scoring) / 100 if scoring else None}


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Sample how busy the first GPU is, in percent; the samples are there when the context has ended."""
    samples: list[float] = []
    command = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with tempfile.TemporaryFile("w+") as listing:
        try:
            watcher = subprocess.Popen([*command, f"--loop-ms={_SAMPLE_MILLISECONDS}"], stdout=listing)
        except OSError:
            yield samples  # no such program: not measured
            return
        try:
            yield samples
        finally:
            watcher.terminate()
            watcher.wait()
            listing.seek(0)
            samples += [float(line) for line in listing if line.strip().replace(".", "").isdecimal()]


def _decoding(bench: Workbench, paths: list[str], rounds: int) -> list[float]:
    """Return the images that all cores together decode and resize in a second."""
    settings = {"model": str(tiny(bench.data, 224)), "images": paths, "workers": os.cpu_count(), "kind": "threads"}
    with Contestant("decoders", settings, bench.log("gpu-decoding")) as decoders:
        return [decoders.ask()["images_per_second"] for _ in range(rounds)]


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
