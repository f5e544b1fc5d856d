"""What it costs to divide a step among workers: planning, merging, each shard, and a simulation of a large one."""

from __future__ import annotations

import heapq
import json
import logging
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.session
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.captions import captions
from benchmarks.kept import kept
from benchmarks.record import Goal, Record, Table, median
from benchmarks.workbench import Workbench
from clip_operator.job.evaluation import evaluate
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import ShardPlan, merge_shards, plan_shards
from clip_operator.steps import part_name
from clip_operator.storage import S3Access, Storage
from demo.object_store import ObjectStore, object_store

ResultT = TypeVar("ResultT")

_MODEL = "builtin://shapes-clip"
_SHARDS = 16
_ROW_GROUP = 65_536

# What the simulation is of.
_PAIRS, _PODS = 100_000_000, 64
_SHARD_ROWS = 131_072
_POD_START_SECONDS = 60.0
_RATES = (100, 500, 2000)
_STRAGGLING = 0.15


def run(bench: Workbench) -> Record:
    """Plan, score and merge tables whose rows cost next to nothing to score, then reckon what a large step takes."""
    logging.getLogger("clip_operator").setLevel(logging.ERROR)  # every shard would say how many texts were cut
    rows = bench.pick(1_000_000, 20_000)
    record = Record("scale", {"rows": rows, "shards": _SHARDS, "model": _MODEL})
    folder = bench.scratch / "scale-store"
    shutil.rmtree(folder, ignore_errors=True)
    with object_store(folder) as store:
        files = {name: kept(bench.data / f"pairs-{rows}.{name}", write) for name, write in _writers(rows).items()}
        found = {name: _measured(bench, store, name, path, rows) for name, path in files.items()}
    shutil.rmtree(folder)
    record.tables.append(_steps_table(found, rows))
    overhead = _overhead(bench)
    record.tables.append(_overhead_table(overhead))
    names = [part_name(index, 10_000) for index in range(10_000)]
    xcom = len(json.dumps(names))
    jsonl = found["jsonl"]
    merge_seconds_a_shard = jsonl.merge_seconds / _SHARDS
    plan_seconds = jsonl.plan_seconds * _PAIRS / rows
    record.tables.append(_simulation_table(plan_seconds, merge_seconds_a_shard, overhead))
    record.tables.append(_requests_table(jsonl, rows, xcom))
    record.goals.append(Goal("kB that the shards of a step of 10,000 take in XCom", xcom / 1000, at_most=1000))
    record.measurements = {
        "steps": {name: vars(figures) for name, figures in found.items()},
        "overhead_seconds": overhead,
        "xcom_bytes_of_10000_shards": xcom,
    }
    record.not_measured.append("pods, GPUs and a real cluster: the simulation's rates are assumptions, stated as such")
    return record


@dataclass
class _Figures:
    """What one format's step took.

    :param requests: to the store, by what was done.
    """

    megabytes: float
    plan_seconds: float
    score_seconds: float
    merge_seconds: float
    requests: dict[str, dict[str, int]]


def _measured(bench: Workbench, store: ObjectStore, name: str, path: Path, rows: int) -> _Figures:
    print(f"  {name}, {rows:,} rows", flush=True)
    root = f"s3://scale-{name}"
    client = store.client()
    client.create_bucket(Bucket=f"scale-{name}")
    client.upload_file(str(path), f"scale-{name}", path.name)
    client.upload_file(str(_picture(bench)), f"scale-{name}", "picture.png")
    request = parse_request(
        {"input": f"{root}/{path.name}", "output": f"{root}/steps/out.{name}", "model": _MODEL, "device": "cpu"}
    )
    requests: dict[str, dict[str, int]] = {}

    def timed(what: str, work: Callable[[Storage], ResultT]) -> tuple[float, ResultT]:
        with _counting(store) as (storage, counts):
            began = time.perf_counter()
            result = work(storage)
            seconds = time.perf_counter() - began
        requests[what] = dict(counts)
        return seconds, result

    plan_seconds, plan = timed("plan", lambda storage: plan_shards(request, storage, shards=_SHARDS))
    score_seconds, _ = timed("score", lambda storage: _score(plan, storage))
    merge_seconds, _ = timed("merge", lambda storage: merge_shards(plan.uri, storage, None))
    return _Figures(path.stat().st_size / 1e6, plan_seconds, score_seconds, merge_seconds, requests)


def _score(plan: ShardPlan, storage: Storage) -> None:
    for name in plan.names:
        evaluate(plan.shard_request(name, None), storage)


@contextmanager
def _counting(store: ObjectStore) -> Iterator[tuple[Storage, Counter[str]]]:
    """Give a storage whose requests are counted by the name of their operation."""
    counts: Counter[str] = Counter()
    session = botocore.session.Session()
    session.set_credentials(store.access_key, store.secret_key)
    session.set_config_variable("region", "us-east-1")
    session.register("before-send.s3", lambda event_name, **_: counts.update([event_name.rpartition(".")[2]]))
    yield Storage(S3Access(boto3.session.Session(botocore_session=session), store.endpoint_url)), counts


def _overhead(bench: Workbench) -> dict[str, float]:
    """Return the seconds that a shard takes beside its rows: in a process that scores others too, and in its own."""
    rows = bench.pick(64, 16) * _SHARDS
    folder = bench.scratch / "overhead"
    folder.mkdir(exist_ok=True)
    (folder / "picture.png").write_bytes(_picture(bench).read_bytes())
    _write_jsonl(folder / "pairs.jsonl", rows)

    def request(name: str) -> EvaluationRequest:
        fields = {"input": str(folder / "pairs.jsonl"), "output": str(folder / name), "model": _MODEL, "device": "cpu"}
        return parse_request({**fields, "resume_point_rows": rows // _SHARDS, "overwrite": True})

    whole, shards, alone = [], [], []
    evaluate(request("warm.jsonl"))
    for _ in range(bench.pick(5, 1)):
        began = time.perf_counter()
        evaluate(request("whole.jsonl"))
        whole.append(time.perf_counter() - began)
        plan = plan_shards(request("shards.jsonl"), Storage(), shards=_SHARDS)
        began = time.perf_counter()
        _score(plan, Storage())
        shards.append((time.perf_counter() - began) / _SHARDS)
        one = plan.shard_request(plan.names[0], None).model_dump_json()
        began = time.perf_counter()
        command = [sys.executable, "-m", "clip_operator", "evaluate", "--quiet", "--request-json", one]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        alone.append(time.perf_counter() - began)
    return {
        "whole": median(whole),
        "shard": median(shards) - median(whole) / _SHARDS,
        "process": median(alone) - median(whole) / _SHARDS,
    }


def _simulated(rate: float, overhead: float, before: float, after: float) -> tuple[float, float]:
    """Return the hours that a step takes on many pods, and the share of the pods' time in which rows are scored.

    Each pod takes the next shard when it is done with one. Shards differ in speed by some 15 %, from a fixed seed.
    """
    drawn = random.Random(1)
    shards = [_SHARD_ROWS] * (_PAIRS // _SHARD_ROWS) + [_PAIRS % _SHARD_ROWS]
    free = [0.0] * _PODS
    scoring = 0.0
    for rows in shards:
        seconds = rows / rate * drawn.lognormvariate(0, _STRAGGLING)
        scoring += seconds
        heapq.heappush(free, heapq.heappop(free) + overhead + seconds)
    last = max(free)
    return (before + last + after) / 3600, scoring / (last * _PODS)


def _simulation_table(plan: float, merge_a_shard: float, overhead: dict[str, float]) -> Table:
    shards = -(-_PAIRS // _SHARD_ROWS)
    pod = _POD_START_SECONDS + overhead["process"]
    rows = []
    for rate in _RATES:
        hours, busy = _simulated(rate, pod, plan, merge_a_shard * shards)
        rows.append([f"{rate:,}", f"{hours:.1f}", f"{100 * busy:.0f} %", f"{hours * _PODS:,.0f}"])
    title = (
        f"Simulated: {_PAIRS:,} pairs in {shards:,} shards of {_SHARD_ROWS:,} on {_PODS} pods; plan "
        f"{plan / 60:.1f} min and merge {merge_a_shard * shards / 60:.1f} min, extrapolated from the JSONL above; "
        f"a pod takes {pod:.0f} s beside its rows, of which {_POD_START_SECONDS:.0f} s to be started are assumed"
    )
    return Table(title, ["rows/s a pod (assumed)", "hours", "time spent scoring", "pod hours"], rows)


def _steps_table(found: dict[str, _Figures], rows: int) -> Table:
    return Table(
        f"{rows:,} rows of one image and a thousand captions, from and to an S3 server on this machine, "
        f"{_SHARDS} shards",
        ["format", "MB", "plan s", "score s (16 shards, one after another)", "merge s"],
        [
            [
                name,
                f"{f.megabytes:.0f}",
                f"{f.plan_seconds:.1f}",
                f"{f.score_seconds:.0f}",
                f"{f.merge_seconds:.1f}",
            ]
            for name, f in found.items()
        ],
    )


def _overhead_table(overhead: dict[str, float]) -> Table:
    return Table(
        "What a shard takes beside its rows",
        ["", "seconds"],
        [
            ["in a process that has scored before", f"{overhead['shard']:.2f}"],
            ["in a process of its own, the model loaded", f"{overhead['process']:.2f}"],
        ],
    )


def _requests_table(jsonl: _Figures, rows: int, xcom: int) -> Table:
    def total(what: str) -> int:
        return sum(jsonl.requests[what].values())

    shards = -(-_PAIRS // _SHARD_ROWS)
    a_shard = total("score") / _SHARDS
    return Table(
        "Requests to the store, JSONL",
        ["", f"{_SHARDS} shards, counted", f"{shards:,} shards, reckoned"],
        [
            ["plan", f"{total('plan'):,}", "one for each 4 MiB of the input, and a few"],
            [f"a shard of {rows // _SHARDS:,} rows, but for images", f"{a_shard:,.0f}", "some 5 for each 4,096 rows"],
            ["merge", f"{total('merge'):,}", f"about {total('merge') / _SHARDS:.0f} a shard"],
            ["bytes of XCom a shard", f"{xcom / 10_000:.0f}", f"{xcom / 10_000 * shards:,.0f} in all"],
        ],
    )


def _writers(rows: int) -> dict[str, Callable[[Path], None]]:
    return {
        "jsonl": partial(_write_jsonl, rows=rows),
        "csv": partial(_write_csv, rows=rows),
        "parquet": partial(_write_parquet, rows=rows),
    }


def _pairs(rows: int) -> Iterator[tuple[int, str]]:
    some = captions(1000, seed=3)
    return ((number, some[number % len(some)]) for number in range(rows))


def _write_jsonl(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for number, text in _pairs(rows):
            row: dict[str, Any] = {"id": number, "image_path": "picture.png", "text": text}
            file.write(json.dumps(row) + "\n")


def _write_csv(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.write("id,image_path,text\n")
        file.writelines(f'{number},picture.png,"{text}"\n' for number, text in _pairs(rows))


def _write_parquet(path: Path, rows: int) -> None:
    pairs = list(_pairs(rows))
    table = pa.table(
        {
            "id": [number for number, _ in pairs],
            "image_path": ["picture.png"] * rows,
            "text": [text for _, text in pairs],
        }
    )
    pq.write_table(table, path, row_group_size=min(_ROW_GROUP, max(1, rows // (2 * _SHARDS))))


def _picture(bench: Workbench) -> Path:
    return kept(bench.data / "picture.png", lambda path: Image.new("RGB", (64, 64), "orange").save(path, "PNG"))
