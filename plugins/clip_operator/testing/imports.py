"""What the files of DAGs import, each found out in a process of its own that has imported nothing but Airflow.

Run as a program: ``python -m clip_operator.testing.imports FOLDER FILE…`` writes one line of JSON for each file.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What takes a second or more, or a hundred MB, each time that Airflow reads the file, which is every 30 seconds.
HEAVY = frozenset(
    {
        "cv2",
        "datasets",
        "diffusers",
        "jax",
        "keras",
        "open_clip",
        "pandas",
        "polars",
        "pyarrow",
        "scipy",
        "sentence_transformers",
        "sklearn",
        "tensorflow",
        "torch",
        "torchvision",
        "transformers",
    }
)


@dataclass(frozen=True)
class Imports:
    """What reading one file took.

    :param heavy: modules that it, or another file of the folder, imports when it is read, and the line.
    :param seconds: how long it took, beyond Airflow and the operators.
    """

    heavy: Mapping[str, str]
    seconds: float


def imports_of(folder: Path, files: Sequence[str]) -> dict[str, Imports]:
    """Return what each file of a folder imports. What cannot be read says so elsewhere, and is left out."""
    done = subprocess.run(  # noqa: S603 - this very interpreter
        [sys.executable, "-m", __name__, str(folder), *files], capture_output=True, text=True, check=False
    )
    found = {}
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = json.loads(line)
            found[told["file"]] = Imports(told["heavy"], told["seconds"])
    return found


def _main(folder: str, *files: str) -> None:
    # What a DAG with an operator loads at least.
    for module in ("airflow.sdk", *(f"clip_operator.{name}" for name in ("operators.asked", "request", "tables"))):
        importlib.import_module(module)
    for file in files:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            _read(Path(folder), file, write_end)
        os.close(write_end)
        with os.fdopen(read_end) as told:
            sys.stdout.write(told.read())
        os.waitpid(child, 0)


def _read(folder: Path, file: str, told: int) -> None:
    """Read a file as Airflow does, write what it imported, and end this process."""
    heavy: dict[str, str] = {}
    plain_import = builtins.__import__

    def noting(name: str, scope: Any = None, *more: Any, **named: Any) -> Any:
        package = name.partition(".")[0]
        importer = (scope or {}).get("__file__")
        if package in HEAVY and package not in sys.modules and importer and Path(importer).is_relative_to(folder):
            heavy[package] = f"{Path(importer).relative_to(folder)}:{sys._getframe(1).f_lineno}"
        return plain_import(name, scope, *more, **named)

    builtins.__import__ = noting  # type: ignore[assignment] # it hands on what it is given
    sys.path.insert(0, str(folder))
    begun = time.perf_counter()
    try:
        with Path(os.devnull).open("w") as none, contextlib.redirect_stdout(none), contextlib.redirect_stderr(none):
            spec = importlib.util.spec_from_file_location("examined_dag", folder / file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
    except BaseException:  # noqa: S110 - Airflow's own reading of the file tells
        pass
    line = {"file": file, "heavy": heavy, "seconds": time.perf_counter() - begun}
    os.write(told, (json.dumps(line) + "\n").encode())
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
