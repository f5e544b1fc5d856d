"""What importing the operator costs a DAG file, beyond Airflow's own SDK, which every DAG file imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.contestant import REPOSITORY
from benchmarks.record import Goal, Record, Table, median, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 15
_MOST_SECONDS = 0.1
_HEAVY = (
    "torch",
    "transformers",
    "PIL",
    "pandas",
    "numpy",
    "pyarrow",
    "boto3",
    "kubernetes",
    "airflow.providers.cncf.kubernetes",
)

# Airflow's SDK is lazy, and loads little until it is asked for what every DAG file with an operator uses.
_SDK = "from airflow.sdk import DAG, BaseOperator, dag"
_OPERATOR = "from clip_operator.operators import ImageCLIPEvaluatorOperator"
_PROGRAM = """
import json, sys, time
times = [time.perf_counter()]
for statement in sys.argv[1:]:
    exec(statement)
    times.append(time.perf_counter())
print(json.dumps({"seconds": times[-1] - times[0], "last": times[-1] - times[-2], "modules": sorted(sys.modules)}))
"""


def run(bench: Workbench) -> Record:
    """Import the SDK alone, and the SDK and the operator, in fresh processes, in turn."""
    rounds = bench.pick(ROUNDS, 2)
    programs = {"airflow.sdk": [_SDK], "airflow.sdk and clip_operator.operators": [_SDK, _OPERATOR]}
    for imports in programs.values():
        _import(bench, imports)  # writes the compiled files
    found = alternate({name: partial(_import, bench, imports) for name, imports in programs.items()}, rounds)
    alone, both = found.values()
    seconds = [[reply["seconds"] for reply in replies] for replies in (alone, both)]
    cost = median(seconds[1]) - median(seconds[0])
    pulled = sorted(set(both[0]["modules"]) - set(alone[0]["modules"]))
    heavy = [name for name in _HEAVY if any(f"{module}.".startswith(f"{name}.") for module in pulled)]
    before = [name for name in _HEAVY if name in alone[0]["modules"]]
    record = Record("imports", {"rounds": rounds, "imports": programs})
    rows = [[name, spread([1000 * s for s in each], 0)] for name, each in zip(programs, seconds, strict=True)]
    rows.append(["the operator: difference of the medians", f"{1000 * cost:.0f}"])
    rows.append(
        ["the operator: after the SDK, in the same process", spread([1000 * reply["last"] for reply in both], 0)]
    )
    record.tables = [
        Table("Import time", ["imports", "ms"], rows),
        Table(
            "Heavy modules",
            ["", "modules"],
            [
                ["airflow.sdk alone", ", ".join(before) or "none"],
                ["more with the operator", ", ".join(heavy) or "none"],
            ],
        ),
    ]
    record.goals = [
        Goal("seconds that the operator adds", cost, at_most=_MOST_SECONDS),
        Goal("heavy modules that the operator adds", len(heavy), at_most=0),
    ]
    record.measurements = {
        "seconds": dict(zip(programs, seconds, strict=True)),
        "seconds_of_the_operator_in_the_same_process": [reply["last"] for reply in both],
        "heavy_modules_of_airflow_sdk": before,
        "heavy_modules_added": heavy,
        "modules_added": pulled,
    }
    return record


def _import(bench: Workbench, imports: Sequence[str]) -> dict[str, Any]:
    """Return the seconds that some imports take in a fresh interpreter, and the modules that are loaded then."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment = {**inherited, "AIRFLOW_HOME": str(bench.scratch / "airflow"), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", _PROGRAM, *imports]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
