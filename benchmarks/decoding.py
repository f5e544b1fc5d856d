"""Threads against processes for decoding and resizing: the measurement behind the choice of threads."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial

from benchmarks.checkpoints import tiny
from benchmarks.contestant import Contestant
from benchmarks.photos import VGA, photos
from benchmarks.record import Record, Table, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 3
_KINDS = ("threads", "processes")
_IMAGE_PIXELS = 224


def run(bench: Workbench) -> Record:
    """Prepare the same photos with 1, 2, 4, … workers, threads and processes in turn."""
    checkpoint = tiny(bench.data, _IMAGE_PIXELS)  # only its image processor is used
    images, rounds = bench.pick(300, 12), bench.pick(ROUNDS, 1)
    names = [str(bench.data / name) for name in photos(bench.data, images, VGA)]
    record = Record("decoding", {"images": images, "rounds": rounds, "image": VGA, "resized_to": _IMAGE_PIXELS})
    rows = []
    for workers in _worker_counts(os.cpu_count() or 1):
        with ExitStack() as stack:
            pools = {
                kind: stack.enter_context(
                    Contestant(
                        "decoders",
                        {"model": str(checkpoint), "images": names, "workers": workers, "kind": kind},
                        bench.log(f"decoding-{kind}-{workers}"),
                    )
                )
                for kind in _KINDS
            }
            found = alternate({f"{workers} {kind}": partial(pool.ask) for kind, pool in pools.items()}, rounds)
        rates = {kind: [r["images_per_second"] for r in found[f"{workers} {kind}"]] for kind in _KINDS}
        gain = ratios(rates["threads"], rates["processes"])
        rows.append([str(workers), spread(rates["threads"]), spread(rates["processes"]), spread(gain, 2)])
        record.measurements[str(workers)] = rates
    columns = ["workers", "threads, images/s", "processes, images/s", "threads over processes"]
    record.tables.append(Table("Decoding and resizing 640 x 480 JPEGs", columns, rows))
    return record


def _worker_counts(cores: int) -> list[int]:
    """Return 1, 2, 4, … up to the number of cores, and that number."""
    return sorted({1, cores, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)})
