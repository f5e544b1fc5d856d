"""Runs the whole thing on this machine: ``make demo``, or ``python -m demo``.

Starts an S3 server on loopback, puts the demo data set into a bucket, scores it with the evaluation DAG through
Airflow, shows what came of it, and leaves the report as a file. Everything it makes is in ``.demo``; what it starts, it
stops.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from clip_operator.steps import report_uri
from demo.object_store import ObjectStore
from demo.stage import DAG, FOLDER, stage, step


def main() -> int:
    """Run the demo; return 0 if it worked."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder for everything that it makes")
    folder = parser.parse_args().folder.resolve()
    began = time.monotonic()
    with stage(folder) as (store, airflow):
        log = folder / "dag-run.log"
        try:
            with step(f"Run the DAG {DAG} with Airflow"):
                airflow.run(["dags", "test", DAG], log)
        except subprocess.CalledProcessError as error:
            print(f"\n{error.output}\nThe DAG run failed; its whole log is {log}", file=sys.stderr)
            return 1
        xcoms = airflow.xcoms(DAG)
        _show(xcoms, store, log)
        report = folder / "report.html"
        report.write_bytes(store.get(report_uri(xcoms["score", "output_path"])))
    print(f"\nDone in {time.monotonic() - began:.0f} s. The store's data, Airflow's home and the logs are in {folder}")
    print(f"The report, to open in a browser: {report}")
    return 0


def _show(xcoms: dict[tuple[str, str], Any], store: ObjectStore, log: Path) -> None:
    value, output, summary = (xcoms["score", key] for key in ("return_value", "output_path", "summary"))
    rows = [json.loads(line) for line in store.get(output).decode().splitlines()]
    scored = sorted((row for row in rows if row["clip_score"] is not None), key=lambda row: row["clip_score"])
    counts, scores = summary["rows"], summary["scores"]
    reused = "is complete already" in log.read_text(errors="replace")

    print("\nWhat the next task gets")
    print(f"  XCom           {json.dumps(value)}")
    print(f"  output step    {output}")
    print(f"  manifest       {output}.manifest.json")
    if reused:
        print("  (an earlier run had scored this data set already, so this one had nothing to score)")
    print("\nScores, (cos + 1) / 2")
    print(f"  rows           {counts['total']}, of which {counts['scored']} scored")
    for reason, count in counts["failures"].items():
        print(f"                 {count} without a score: {reason}")
    print(f"  mean           {scores['mean']:.3f} ± {scores['standard_deviation']:.3f}")
    quantiles = scores["quantiles"]
    print(f"  range          {scores['minimum']:.3f} … {scores['maximum']:.3f}")
    print(f"  quartiles      {quantiles['p25']:.3f}  {quantiles['p50']:.3f}  {quantiles['p75']:.3f}")
    print(f"  model          {summary['model']}, a small one that knows drawn shapes only; on {summary['device']}")
    _table("Best pairs", scored[:-6:-1])
    _table("Worst pairs", scored[:5])


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    print("  score   made as    image              caption")
    for row in rows:
        print(f"  {row['clip_score']:.3f}   {row['label']:<10} {row['image_path']:<18} {row['text']}")


if __name__ == "__main__":
    sys.exit(main())
