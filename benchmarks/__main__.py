"""Runs benchmarks: ``make bench``, or ``python -m benchmarks throughput``.

Each prints its tables and goals and writes ``NAME.json``. ``--report`` prints such files as Markdown instead.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.contestant import REPOSITORY
from benchmarks.machine import described, machine
from benchmarks.record import Record, goals_table
from benchmarks.workbench import DEFAULT_OUTPUT, Workbench

BENCHMARKS = {
    "imports": "what importing the operator costs a DAG file",
    "throughput": "rows a second, against the row-by-row original",
    "pipeline": "rows a second end to end, against the bare forward passes",
    "feeding": "what it costs to feed a device that computes at once",
    "reuse": "what it brings that images met before are not encoded again",
    "libraries": "rows a second, against other libraries",
    "forward": "the image tower: ways to run it",
    "precision": "how far scores move in half precision",
    "decoding": "decoding and resizing in threads, against processes",
    "big_images": "12-megapixel JPEGs and large PNGs",
    "memory": "peak memory at 10,000 and at 200,000 rows",
    "additions": "what a report, percentiles and a filtered step cost",
    "score_store": "what an unchanged row costs, over scoring it",
    "scale": "planning, merging, and what a shard costs",
    "gpu": "rows a second and utilisation of a GPU",
}

_WIDTH = 140
"""Columns of a table that goes to a file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; return 0 if all of it ran, whether or not its goals are met."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if options.report:
        _print_report(options.report)
        return 0
    command = " ".join(["python -m benchmarks", *arguments])
    failed = [name for name in options.names or BENCHMARKS if not _run(name, options.out, options.quick, command)]
    if failed:
        print(f"\nDid not run to the end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog="benchmarks:\n" + "\n".join(f"  {name:<12} {title}" for name, title in BENCHMARKS.items()),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="one of those below; by default all")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it runs; the figures mean nothing"
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUTPUT, metavar="FOLDER", help="where the JSON goes")
    parser.add_argument(
        "--report", nargs="+", type=Path, metavar="FILE", help="print results as Markdown and run nothing"
    )
    return parser


def _run(name: str, out: Path, quick: bool, command: str) -> bool:
    print(f"\n{name}: {BENCHMARKS[name]}", flush=True)
    found, began = machine(), time.monotonic()
    try:
        record: Record = importlib.import_module(f"benchmarks.{name}").run(Workbench(DEFAULT_OUTPUT, quick))
    except Exception:
        traceback.print_exc()  # the others are measured all the same
        return False
    record.settings["quick"] = quick
    _show(record, Console() if sys.stdout.isatty() else Console(width=_WIDTH))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps(record.as_json(found, command), indent=1) + "\n")
    shown = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path
    print(f"{time.monotonic() - began:.0f} s; {shown}")
    return True


def _show(record: Record, console: Console, markdown: bool = False) -> None:
    for table in [*record.tables, *([goals_table(record.goals)] if record.goals else [])]:
        console.print(f"\n**{table.title}**" if markdown else f"\n{table.title}", style=None if markdown else "bold")
        console.print(table.rendered(markdown))
    for what in record.not_measured:
        console.print(("\n" if markdown else "") + f"Not measured: {what}")


def _print_report(paths: Sequence[Path]) -> None:
    """Print the tables of some results as Markdown, for the README's section of results."""
    documents: list[dict[str, Any]] = [json.loads(path.read_text()) for path in paths]
    order = list(BENCHMARKS)
    documents.sort(key=lambda document: order.index(document["name"]))
    text = StringIO()
    console = Console(file=text, width=1000, highlight=False, markup=False, emoji=False, color_system=None)
    for line in dict.fromkeys(described(document["machine"]) for document in documents):
        console.print(f"\nMachine: {line}", soft_wrap=True)
    for document in documents:
        console.print(f"\n### {document['name']}\n\n`{document['command']}`", soft_wrap=True)
        if document["settings"]["quick"]:
            console.print("\nA trial with tiny sizes: these figures mean nothing.")
        _show(Record.from_json(document), console, markdown=True)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


if __name__ == "__main__":
    sys.exit(main())
