"""What the pipeline around the model costs: rows a second end to end over those of the bare forward passes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant, Reply
from benchmarks.dataset import Dataset, write_dataset
from benchmarks.latency import distant
from benchmarks.photos import VGA, photos
from benchmarks.record import Goal, Record, Table, median, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench
from demo.object_store import ObjectStore, object_store

ROUNDS = 3
LATENCY_SECONDS = 0.02
_BUCKET = "benchmark"
_LOCAL, _S3, _BARE = "local files", "S3, 20 ms away", "bare forward passes"
_GOALS = {_LOCAL: 0.90, _S3: 0.85}


def run(bench: Workbench) -> Record:
    """Evaluate from local files and from a distant S3 server, and run the model on the same rows in memory."""
    checkpoint = vit_b_32(bench.data)
    rows, rounds = bench.pick(800, 12), bench.pick(ROUNDS, 1)
    dataset = write_dataset(bench.data, f"unique-pairs-{rows}", photos(bench.data, rows, VGA))
    record = Record(
        "pipeline",
        {"rows": rows, "rounds": rounds, "latency_seconds": LATENCY_SECONDS, "model": checkpoint.name, "image": VGA},
    )
    folder = bench.scratch / "store"
    shutil.rmtree(folder, ignore_errors=True)
    with object_store(folder) as store, distant(store.endpoint_url, LATENCY_SECONDS) as far_url:
        _upload(dataset, store)
        record.measurements["seconds_of_a_request"] = {
            "direct": _request_seconds(store),
            "through_the_proxy": _request_seconds(ObjectStore(far_url)),
        }
        found = _measure(bench, checkpoint, dataset, ObjectStore(far_url), rounds)
    shutil.rmtree(folder, ignore_errors=True)
    bare = [reply["rows_per_second"] for reply in found[_BARE]]
    table = [[_BARE, spread(bare), "", "", ""]]
    for name in (_LOCAL, _S3):
        rates = [reply["rows_per_second"] for reply in found[name]]
        share = ratios(rates, bare)
        whole = [reply["rows"] / (reply["whole_seconds"] - reply["loading_seconds"]) for reply in found[name]]
        table.append([name, spread(rates), spread(share, 3), spread(whole), _shares(found[name][-1])])
        record.goals.append(Goal(f"{name}: share of the bare rate", median(share), at_least=_GOALS[name]))
    columns = ["", "rows/s", "of the bare rate", "whole job less loading, rows/s", "time shares of the last round"]
    record.tables.append(Table("End to end against the bare forward passes", columns, table))
    record.measurements |= dict(found)
    return record


def _measure(
    bench: Workbench, checkpoint: Path, dataset: Dataset, store: ObjectStore, rounds: int
) -> dict[str, list[Reply]]:
    request = {"model": str(checkpoint), "device": "cpu"}
    access = {"endpoint_url": store.endpoint_url, "access_key": store.access_key, "secret_key": store.secret_key}
    bare: dict[str, Any] = {
        "model": str(checkpoint),
        "device": "cpu",
        "precision": "fp32",
        "rows": dataset.first(len(dataset.rows)),
    }
    with (
        Contestant("evaluation", {"request": request}, bench.log("pipeline-local")) as local,
        Contestant("evaluation", {"request": request, "store": access}, bench.log("pipeline-s3")) as remote,
        Contestant("bare_forward", bare, bench.log("pipeline-bare")) as forward,
    ):
        return alternate(
            {
                _LOCAL: lambda: local.ask(input=str(dataset.path), output=str(bench.scratch / "pipeline-scored.jsonl")),
                _S3: lambda: remote.ask(
                    input=f"s3://{_BUCKET}/{dataset.path.name}", output=f"s3://{_BUCKET}/scored.jsonl"
                ),
                _BARE: lambda: forward.ask(),
            },
            rounds,
        )


def _upload(dataset: Dataset, store: ObjectStore) -> None:
    client = store.client()
    client.create_bucket(Bucket=_BUCKET)
    for name in {dataset.path.name, *(image for image, _ in dataset.rows)}:
        client.put_object(Bucket=_BUCKET, Key=name, Body=(dataset.path.parent / name).read_bytes())


def _request_seconds(store: ObjectStore) -> float:
    """Return the median time of a small request on a warm connection."""
    client, seconds = store.client(), []
    client.head_bucket(Bucket=_BUCKET)
    for _ in range(20):
        began = time.perf_counter()
        client.head_bucket(Bucket=_BUCKET)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def _shares(reply: Reply) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in reply["time_shares"].items())
