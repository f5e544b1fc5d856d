"""What an unchanged row costs where the score store knows its score, over what scoring it costs."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.captions import captions
from benchmarks.checkpoints import tiny, vit_b_32
from benchmarks.contestant import Contestant, Reply
from benchmarks.dataset import write_dataset
from benchmarks.kept import kept
from benchmarks.latency import distant
from benchmarks.photos import VGA, photos, thumbnails
from benchmarks.record import Goal, Record, Table, median, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench
from demo.object_store import ObjectStore, object_store

ROUNDS = 3
_LATENCY_SECONDS = 0.02
_LARGEST_SHARE = 0.02
_BUCKET = "benchmark"
_SCORED, _LOCAL, _S3 = "scored, local files", "unchanged, local files", "unchanged, S3 at 20 ms"
_numbers = itertools.count()


def run(bench: Workbench) -> Record:
    """Score JPEGs with a model of ViT-B/32's size, and, in turn, take over the scores of a data set that is known.

    What is known was scored by a tiny model, because no model takes part in taking scores over. The time of a row is
    that of the whole job, less loading the model, over the rows.
    """
    checkpoint, small = vit_b_32(bench.data), tiny(bench.data, 32)
    rows, known, rounds = bench.pick(256, 12), bench.pick(10_000, 300), bench.pick(ROUNDS, 1)
    record = Record("score_store", {"rows_scored": rows, "rows_known": known, "rounds": rounds, "image": VGA})
    scored = write_dataset(bench.data, f"unique-pairs-{rows}", photos(bench.data, rows, VGA)).path
    local = kept(bench.data / f"known-{known}", partial(_write, rows=known))
    folder = bench.scratch / "score-store"
    shutil.rmtree(folder, ignore_errors=True)
    with object_store(folder / "seaweed") as store, distant(store.endpoint_url, _LATENCY_SECONDS) as far_url:
        client = store.client()
        client.create_bucket(Bucket=_BUCKET)
        store.put_folder(local, f"s3://{_BUCKET}/known")
        far = ObjectStore(far_url)
        access = {"endpoint_url": far.endpoint_url, "access_key": far.access_key, "secret_key": far.secret_key}
        places = {_LOCAL: (str(local), str(folder)), _S3: (f"s3://{_BUCKET}/known", f"s3://{_BUCKET}/out")}
        with (
            Contestant("evaluation", _settings(checkpoint), bench.log("score-store-scored")) as scoring,
            Contestant("evaluation", _settings(small), bench.log("score-store-local")) as near,
            Contestant("evaluation", {**_settings(small), "store": access}, bench.log("score-store-s3")) as remote,
        ):
            contestants = {_LOCAL: near, _S3: remote}
            for name, (source, target) in places.items():
                print(f"  filling the store: {name}", flush=True)
                _evaluate(contestants[name], f"{source}/pairs.jsonl", target, reuse=f"{target}/cache")
            runs: dict[str, Callable[[], Reply]] = {_SCORED: partial(_evaluate, scoring, str(scored), str(folder))}
            for name, (source, target) in places.items():
                evaluate = partial(_evaluate, contestants[name], f"{source}/pairs.jsonl", target)
                runs[name] = partial(evaluate, reuse=f"{target}/cache")
            found = alternate(runs, rounds)
    shutil.rmtree(folder, ignore_errors=True)
    times = {name: [_milliseconds(reply) for reply in replies] for name, replies in found.items()}
    table = [[_SCORED, spread(times[_SCORED], 2), ""]]
    for name in (_LOCAL, _S3):
        shares = ratios(times[name], times[_SCORED])
        table.append([name, spread(times[name], 3), f"{100 * median(shares):.2f} %"])
        record.goals.append(Goal(f"{name}: share of scoring", median(shares), at_most=_LARGEST_SHARE))
    record.tables.append(Table("A row, by wall clock", ["", "ms", "of a row that is scored"], table))
    record.measurements = {name: list(replies) for name, replies in found.items()}
    return record


def _settings(checkpoint: Path) -> dict[str, Any]:
    return {"request": {"model": str(checkpoint), "device": "cpu", "overwrite": False}}


def _evaluate(contestant: Contestant, source: str, target: str, **fields: str) -> Reply:
    """Evaluate to an output of its own, so that no manifest says that there is nothing to do."""
    return contestant.ask(input=source, output=f"{target}/scored-{next(_numbers)}.jsonl", **fields)


def _milliseconds(reply: Reply) -> float:
    return 1000 * float(reply["whole_seconds"] - (reply["loading_seconds"] or 0)) / int(reply["rows"])


def _write(folder: Path, rows: int) -> None:
    """Write a data set of different small JPEGs, and a caption for each."""
    folder.mkdir()
    lines = []
    for number, (image, text) in enumerate(zip(thumbnails(rows), captions(rows, seed=5), strict=True)):
        (folder / f"{number:06d}.jpg").write_bytes(image)
        lines.append(json.dumps({"image_path": f"{number:06d}.jpg", "text": text}) + "\n")
    (folder / "pairs.jsonl").write_text("".join(lines))
