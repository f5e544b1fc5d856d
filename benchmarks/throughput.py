"""Rows a second against the row-by-row original: unique pairs, and five captions to an image."""

from __future__ import annotations

from functools import partial

from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant
from benchmarks.dataset import largest_difference, read_scores, write_dataset
from benchmarks.photos import VGA, photos
from benchmarks.record import Goal, Record, Table, median, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 3
_GOALS = {"unique pairs": 2.5, "five captions an image": 6.0}
_LARGEST_DIFFERENCE = 1e-5


def run(bench: Workbench) -> Record:
    """Measure both on the same JPEGs, each in a warm process; loading the model is left out."""
    checkpoint = vit_b_32(bench.data)
    rows, rows_one_by_one = bench.pick(320, 12), bench.pick(80, 6)
    names = photos(bench.data, rows, VGA)
    scenarios = {
        "unique pairs": write_dataset(bench.data, f"unique-pairs-{rows}", names),
        "five captions an image": write_dataset(bench.data, f"five-captions-{rows}", names[: rows // 5], 5),
    }
    rounds = bench.pick(ROUNDS, 1)
    record = Record(
        "throughput",
        {"rows": rows, "rows_row_by_row": rows_one_by_one, "rounds": rounds, "model": checkpoint.name, "image": VGA},
    )
    request = {"model": str(checkpoint), "device": "cpu"}
    table = []
    with (
        Contestant("evaluation", {"request": request}, bench.log("throughput-ours")) as ours,
        Contestant("row_by_row", {"model": str(checkpoint)}, bench.log("throughput-row-by-row")) as original,
    ):
        for title, dataset in scenarios.items():
            output = bench.scratch / f"{dataset.path.stem}-scored.jsonl"
            few = dataset.first(rows_one_by_one)
            original.ask(rows=few[:4])  # warms up torch and the disk's cache

            found = alternate(
                {
                    "ours": partial(ours.ask, input=str(dataset.path), output=str(output)),
                    "row by row": partial(original.ask, rows=few),
                },
                rounds,
            )
            fast, slow = ([reply["rows_per_second"] for reply in found[name]] for name in ("ours", "row by row"))
            faster = ratios(fast, slow)
            difference = largest_difference(read_scores(output)[:rows_one_by_one], found["row by row"][0]["scores"])
            table.append([title, spread(slow), spread(fast), spread(faster, 2), f"{difference:.1e}"])
            record.goals += [
                Goal(f"{title}: times as fast", median(faster), at_least=_GOALS[title]),
                Goal(f"{title}: largest score difference", difference, at_most=_LARGEST_DIFFERENCE),
            ]
            scores = found["row by row"][0]["scores"]
            record.measurements[title] = {
                "ours": found["ours"],
                "row_by_row_rows_per_second": slow,
                "ratios": faster,
                "largest_score_difference": difference,
                "scores_range": [min(scores), max(scores)],
            }
    columns = ["rows", "row by row, rows/s", "ours, rows/s", "times as fast", "largest score difference"]
    record.tables.append(Table("Against the row-by-row original", columns, table))
    return record
