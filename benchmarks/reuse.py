"""What it brings that an image met before is not encoded again: captions beside each other, and far apart."""

from __future__ import annotations

from functools import partial

from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant
from benchmarks.dataset import write_dataset
from benchmarks.photos import VGA, photos
from benchmarks.record import Record, Table, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 3
_CAPTIONS_EACH = 5
_REMEMBERING: dict[str, dict[str, int]] = {"nothing remembered": {"embedding_cache_bytes": 0}, "default": {}}


def run(bench: Workbench) -> Record:
    """Evaluate five captions an image, adjacent and shuffled, with the memory of embeddings and without."""
    checkpoint = vit_b_32(bench.data)
    rows, rounds = bench.pick(250, 20), bench.pick(ROUNDS, 1)
    names = photos(bench.data, rows // _CAPTIONS_EACH, VGA)
    orders = {
        "adjacent": write_dataset(bench.data, f"five-captions-{rows}", names, _CAPTIONS_EACH),
        "shuffled": write_dataset(bench.data, f"five-captions-shuffled-{rows}", names, _CAPTIONS_EACH, shuffle=True),
    }
    settings = {"rows": rows, "captions_an_image": _CAPTIONS_EACH, "rounds": rounds, "model": checkpoint.name}
    record = Record("reuse", settings)
    request = {"model": str(checkpoint), "device": "cpu"}
    output = str(bench.scratch / "reuse-scored.jsonl")
    with Contestant("evaluation", {"request": request}, bench.log("reuse")) as ours:
        found = alternate(
            {
                f"{order}, {memory}": partial(ours.ask, input=str(dataset.path), output=output, **options)
                for order, dataset in orders.items()
                for memory, options in _REMEMBERING.items()
            },
            rounds,
        )
    table = []
    for name, replies in found.items():
        rates, last = [reply["rows_per_second"] for reply in replies], replies[-1]
        table.append([name, spread(rates), str(last["images_encoded"]), str(last["images_reused"])])
    record.tables.append(
        Table("Five captions to an image", ["captions", "rows/s", "images encoded", "images reused"], table)
    )
    record.measurements = dict(found)
    return record
