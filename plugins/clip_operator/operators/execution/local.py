"""Scoring on the worker: in the task's own process, or under another Python interpreter."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import clip_operator
from clip_operator.errors import Cancelled, JobError, RequestError
from clip_operator.operators.execution.log_lines import last_error, parse_log_line
from clip_operator.operators.work import Work
from clip_operator.proof.manifest import EvaluationManifest, parse_manifest
from clip_operator.request import EvaluationRequest
from clip_operator.storage import Storage

log = logging.getLogger(__name__)

_PACKAGE = Path(clip_operator.__file__).parent

# From SIGTERM to SIGKILL. A batch is over in far less; a model that is being loaded may not be.
_GRACE_SECONDS = 15.0


class InProcess:
    """Score in this process, which must have torch and the rest of the scoring side's packages."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._stop = threading.Event()

    def run(self, work: Work) -> EvaluationManifest:
        try:
            from clip_operator.job.evaluation import evaluate

            return evaluate(work.request, self._storage, self._stop)
        except ModuleNotFoundError as error:
            raise JobError(
                f"Airflow's Python has no {error.name!r}, which scoring needs: install there what the "
                "README lists for scoring, or set python= to an interpreter that has it"
            ) from None

    def stop(self) -> None:
        self._stop.set()


class Subprocess:
    """Score under another interpreter: the command line as a child process, its log lines in this process's log.

    :param python: path of the interpreter. It runs this very package's files, with its own third-party packages.
    :param variables: environment variables to add, such as credentials.
    """

    def __init__(self, python: str, variables: Mapping[str, str]) -> None:
        self._python = python
        self._variables = variables
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def run(self, work: Work) -> EvaluationManifest:
        with tempfile.TemporaryDirectory(prefix="clip-operator-") as folder, tempfile.TemporaryFile("w+") as stdout:
            # The child imports this package and nothing else of this interpreter's: the folder holds one link to it.
            (Path(folder) / "clip_operator").symlink_to(_PACKAGE, target_is_directory=True)
            process = self._start(folder, stdout)
            try:
                _send(process, work.request)
                reason = self._relay(process)
                code = process.wait()
            except BaseException:  # such as Airflow's execution_timeout: what it ends must not go on by itself
                process.kill()
                process.wait()
                raise
            stdout.seek(0)
            output = stdout.read()
        if self._stopped:
            raise Cancelled("stopped before the output was written")
        manifest = parse_manifest(output.encode()) if code == 0 else None
        if manifest is not None:
            return manifest
        if code < 0:
            name = signal.Signals(-code).name
            guess = ": out of memory, most likely; try a smaller batch_size" if name == "SIGKILL" else ""
            raise JobError(f"the scoring process was killed by {name}{guess}")
        reason = reason or f"{self._python} ended with exit code {code} and no message"
        raise RequestError(reason) if code == 2 else JobError(reason)

    def stop(self) -> None:
        self._stopped = True
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            killer = threading.Timer(_GRACE_SECONDS, process.kill)
            killer.daemon = True
            killer.start()

    def _start(self, folder: str, stdout: IO[str]) -> subprocess.Popen[str]:
        # Airflow's own settings and secrets are none of the child's business.
        inherited = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW")}
        if "AWS_ACCESS_KEY_ID" in self._variables:  # a profile or a token of other keys would win or spoil them
            inherited = {name: inherited[name] for name in inherited.keys() - {"AWS_PROFILE", "AWS_SESSION_TOKEN"}}
        try:
            self._process = process = subprocess.Popen(
                [self._python, "-m", "clip_operator", "evaluate", "--ignore-gates", "--request", "-"],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**inherited, **self._variables, "PYTHONPATH": folder, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            raise RequestError(f"python={self._python!r} cannot be run: {error.strerror or error}") from None
        if self._stopped:  # between the constructor and here
            process.terminate()
        return process

    def _relay(self, process: subprocess.Popen[str]) -> str | None:
        """Log what the child logs, at its levels, until it ends. Return its last error, or its last line if it has
        none."""
        assert process.stderr is not None
        return last_error(self._logged(process.stderr))

    @staticmethod
    def _logged(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            if text := line.rstrip():
                level, message = parse_log_line(text)
                log.log(level, "%s", message)
                yield text


def _send(process: subprocess.Popen[str], request: EvaluationRequest) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(request.model_dump_json())
        process.stdin.close()
    except BrokenPipeError:
        log.debug("the child ended before it read the request; its own words say why")
