"""What is added to scores, and what it costs: the report, percentiles, and the filtered step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.captions import captions
from benchmarks.contestant import Contestant, Reply
from benchmarks.kept import kept
from benchmarks.photos import thumbnails
from benchmarks.record import Record, Table, median, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 5
_MODEL = "builtin://shapes-clip"
_IMAGES, _TEXTS = 50, 1000
_ALONE = "scores alone"


def run(bench: Workbench) -> Record:
    """Evaluate tables whose rows cost next to nothing to score: few images and texts, met again and again.

    The time of a row is that of the whole job, less loading the model, over the rows.
    """
    rows, rounds = bench.pick(100_000, 2_000), bench.pick(ROUNDS, 1)
    record = Record("additions", {"rows": rows, "rounds": rounds, "model": _MODEL})
    data = kept(bench.data / f"few-pairs-{rows}", partial(_write, rows=rows))
    with Contestant("evaluation", {"request": {"model": _MODEL, "device": "cpu"}}, bench.log("additions")) as ours:
        for suffix in ("jsonl", "parquet"):
            output, filtered = (str(bench.scratch / f"additions-{name}.{suffix}") for name in ("scored", "filtered"))
            filter_fields = {"min_score": 0.5, "filtered_output": filtered}
            additions: dict[str, dict[str, Any]] = {
                _ALONE: {"report": False},
                "and a report": {},
                "and percentiles": {"report": False, "percentile_key": "percentile"},
                "and a filtered step": {"report": False, **filter_fields},
                "and all of it": {"percentile_key": "percentile", **filter_fields},
            }
            runs: dict[str, Callable[[], Reply]] = {
                f"{suffix}, {name}": partial(ours.ask, input=f"{data}/pairs.{suffix}", output=output, **fields)
                for name, fields in additions.items()
            }
            found = alternate(runs, rounds)
            record.measurements |= {name: list(replies) for name, replies in found.items()}
    times = {name: [_microseconds(reply) for reply in replies] for name, replies in record.measurements.items()}
    table = []
    for name, each in times.items():
        alone = times[f"{name.partition(',')[0]}, {_ALONE}"]
        table.append([name, spread(each), f"{median(ratios(each, alone)):.2f}"])
    record.tables.append(Table("A row, by wall clock", ["", "µs", "times that of scores alone"], table))
    return record


def _microseconds(reply: Reply) -> float:
    return 1e6 * float(reply["whole_seconds"] - (reply["loading_seconds"] or 0)) / int(reply["rows"])


def _write(folder: Path, rows: int) -> None:
    folder.mkdir()
    for number, image in enumerate(thumbnails(_IMAGES)):
        (folder / f"{number}.jpg").write_bytes(image)
    with (folder / "pairs.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in _rows(rows))
    pq.write_table(pa.Table.from_pylist(list(_rows(rows))), folder / "pairs.parquet")


def _rows(rows: int) -> Iterator[dict[str, Any]]:
    some = captions(_TEXTS, seed=7)
    for number in range(rows):
        yield {"id": number, "image_path": f"{number % _IMAGES}.jpg", "text": some[number % _TEXTS]}
