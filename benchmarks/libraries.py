"""Rows a second against other libraries that score pairs with CLIP, at the same checkpoint and on the same rows."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import vit_b_32
from benchmarks.contestant import Contestant, ContestantFailed
from benchmarks.dataset import read_scores, write_dataset
from benchmarks.photos import VGA, photos
from benchmarks.record import NOT_MEASURED, Record, Table, ratios, spread
from benchmarks.rounds import alternate
from benchmarks.workbench import Workbench

ROUNDS = 3
_BATCH_SIZE = 32
_OURS = "this package"
_LIBRARIES = {
    "torchmetrics": "torchmetrics_clip_score",
    "sentence-transformers": "sentence_transformers_clip",
    "py-data-juicer": "data_juicer_filter",
}
_REQUIREMENTS = Path(__file__).with_name("libraries-requirements.txt")


def run(bench: Workbench) -> Record:
    """Score the same pairs with each library, in turn, in warm processes; loading the model is left out."""
    checkpoint = vit_b_32(bench.data)
    rows, rows_of_others, rounds = bench.pick(256, 12), bench.pick(128, 6), bench.pick(ROUNDS, 1)
    dataset = write_dataset(bench.data, f"unique-pairs-{rows}", photos(bench.data, rows, VGA))
    few = dataset.first(rows_of_others)
    record = Record(
        "libraries",
        {
            "rows": rows,
            "rows_of_others": rows_of_others,
            "batch_size_of_others": _BATCH_SIZE,
            "rounds": rounds,
            "model": checkpoint.name,
            "image": VGA,
        },
    )
    python = _environment(bench)
    record.settings["versions"] = versions = _versions(python)
    output = bench.scratch / "libraries-scored.jsonl"
    settings: dict[str, Any] = {"model": str(checkpoint), "batch_size": _BATCH_SIZE, "warm_up": few[:2]}
    request = {"model": str(checkpoint), "device": "cpu"}
    with ExitStack() as stack:
        ours = stack.enter_context(Contestant("evaluation", {"request": request}, bench.log("libraries-ours")))
        runs = {_OURS: partial(ours.ask, input=str(dataset.path), output=str(output))}
        for library, module in _LIBRARIES.items():
            try:
                other = stack.enter_context(
                    Contestant(module, settings, bench.log(f"libraries-{library}"), python=str(python))
                )
                other.ask(rows=few[:4])  # warms up
            except ContestantFailed as error:
                record.not_measured.append(f"{library}: {str(error).strip().splitlines()[-1]}")
                continue
            runs[library] = partial(other.ask, rows=few)
        found = alternate(runs, rounds)
    rates = {name: [reply["rows_per_second"] for reply in replies] for name, replies in found.items()}
    means = {name: found[name][0]["mean_score"] for name in found if name != _OURS}
    means[_OURS] = statistics.fmean(read_scores(output)[:rows_of_others])
    table = [[_OURS, spread(rates[_OURS]), "", f"{means[_OURS]:.6f}"]]
    for library in _LIBRARIES:
        title = f"{library} {versions.get(library, '')}".strip()
        if library not in rates:
            table.append([title, NOT_MEASURED, "", ""])
            continue
        faster = spread(ratios(rates[_OURS], rates[library]), 2)
        table.append([title, spread(rates[library]), faster, f"{means[library]:.6f}"])
    columns = ["", "rows/s", "this package is faster by", f"mean score of the first {rows_of_others} rows"]
    record.tables.append(Table("Unique pairs of 640 x 480 JPEGs and captions", columns, table))
    record.measurements = {"rows_per_second": rates, "mean_scores": means}
    return record


def _environment(bench: Workbench) -> Path:
    """Return the interpreter of the libraries' own environment, made if it is not there or has other versions."""
    folder = bench.folder / "venv"
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    marker = folder / "requirements.sha256"
    if marker.exists() and marker.read_text() == wanted:
        return python
    print(f"  installing the libraries, which takes minutes; see {bench.log('libraries-install')}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--requirement", str(_REQUIREMENTS)]
    log = bench.log("libraries-install")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        subprocess.run(install, check=True, stdout=output, stderr=subprocess.STDOUT)
    marker.write_text(wanted)
    return python


def _versions(python: Path) -> dict[str, str]:
    """Return the versions of what is installed there, by the names in the requirements."""
    listing = subprocess.run(
        [str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    installed = dict(line.split("==", 1) for line in listing if "==" in line)
    wanted = [line.split("==")[0] for line in _REQUIREMENTS.read_text().splitlines() if "==" in line]
    return {name: installed[name] for name in wanted if name in installed}
