"""Rows a second against the row-by-row original, and how near they are to the machine's limit.

Unique pairs, and five captions to an image. The limit is the rate of products of matrices of the model's sizes, in as
many threads, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant, Reply
from benchmarks.dataset import largest_difference, read_scores, write_dataset
from benchmarks.photos import VGA, photos
from benchmarks.record import Goal, Record, Table, median, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 3
_GOALS = {"unique pairs": 2.5, "five captions an image": 6.0}
_LARGEST_DIFFERENCE = 1e-5
_LIMIT = "the machine's limit"


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
    table, limits = [], []
    texts = [text for _, text in scenarios["unique pairs"].rows]
    limit_settings = {"model": str(checkpoint), "texts": texts, "seconds": bench.pick(2, 0)}
    with (
        Contestant("evaluation", {"request": request}, bench.log("throughput-ours")) as ours,
        Contestant("row_by_row", {"model": str(checkpoint)}, bench.log("throughput-row-by-row")) as original,
        Contestant("matrix_limit", limit_settings, bench.log("throughput-limit")) as limit,
    ):
        for title, dataset in scenarios.items():
            output = bench.scratch / f"{dataset.path.stem}-scored.jsonl"
            few = dataset.first(rows_one_by_one)
            original.ask(rows=few[:4])  # warms up torch and the disk's cache

            runs: dict[str, Callable[[], Reply]] = {
                "ours": partial(ours.ask, input=str(dataset.path), output=str(output)),
                "row by row": partial(original.ask, rows=few),
                _LIMIT: limit.ask,
            }
            found = alternate(runs, rounds)
            fast, slow = ([reply["rows_per_second"] for reply in found[name]] for name in ("ours", "row by row"))
            faster = ratios(fast, slow)
            difference = largest_difference(read_scores(output)[:rows_one_by_one], found["row by row"][0]["scores"])
            limits += found[_LIMIT]
            shares = [_share(ours, most) for ours, most in zip(found["ours"], found[_LIMIT], strict=True)]
            table.append(
                [title, spread(slow), spread(fast), spread(faster, 2), f"{difference:.1e}", f"{median(shares):.0%}"]
            )
            record.goals += [
                Goal(f"{title}: times as fast", median(faster), at_least=_GOALS[title]),
                Goal(f"{title}: largest score difference", difference, at_most=_LARGEST_DIFFERENCE),
            ]
            scores = found["row by row"][0]["scores"]
            record.measurements[title] = {
                "ours": found["ours"],
                "row_by_row_rows_per_second": slow,
                "ratios": faster,
                "limits": found[_LIMIT],
                "shares_of_the_limit": shares,
                "largest_score_difference": difference,
                "scores_range": [min(scores), max(scores)],
            }
    columns = ["rows", "row by row, rows/s", "ours, rows/s", "times as fast", "largest score difference"]
    record.tables.append(Table("Against the row-by-row original", [*columns, "ours, of the limit"], table))
    record.tables.append(_limits_table(limits))
    return record


def _share(ours: Reply, limit: Reply) -> float:
    """Return the part of the machine's limit that an evaluation has reached."""
    flops = ours["images_encoded"] * limit["flops_of_an_image"] + ours["texts_encoded"] * limit["flops_of_a_text"]
    most = max(rates["all_cores"] for rates in limit["flops_per_second"].values())
    return float(flops / ours["seconds"] / most)


def _limits_table(limits: Sequence[Reply]) -> Table:
    """How fast the machine multiplies; the limit is the faster library on all cores."""
    last = limits[-1]
    rows = [
        [
            f"{name}, batches, a thread each",
            *(_giga([each["flops_per_second"][name][cores] for each in limits]) for cores in rates),
        ]
        for name, rates in last["flops_per_second"].items()
    ]
    rows.append(
        ["torch.mm, one image in all threads", "", _giga([each["flops_per_second_of_one_image"] for each in limits])]
    )
    needs = f"an image takes {last['flops_of_an_image'] / 1e9:.2f} GFLOP, a caption {last['flops_of_a_text'] / 1e9:.2f}"
    return Table(
        f"The machine's limit: products of the model's sizes, GFLOP/s; {needs}", ["", "one core", "all cores"], rows
    )


def _giga(values: Sequence[float]) -> str:
    return spread([value / 1e9 for value in values], 0)
