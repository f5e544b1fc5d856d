"""An Airflow whose commands are forks of a process that has imported it, and what scoring takes: there in a moment."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

from demo.airflow_home import AirflowHome

_IMPORTED = (
    "airflow.__main__",
    "airflow.cli.commands.dag_command",
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.providers.cncf.kubernetes.operators.pod",
    "clip_operator.operators.execution.kubernetes",
    "clip_operator.job.evaluation",
    "clip_operator.model.loading",
    "clip_operator.storage.s3.backend",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.image_processing_pil_clip",
    "transformers.models.clip.tokenization_clip",
)


class WarmAirflow(AirflowHome):
    """An ``AIRFLOW_HOME`` whose commands begin at once, one at a time. What is forked has read this home's settings."""

    def start(self, arguments: Sequence[str], log: Path) -> Command:
        """Start an ``airflow`` command, its output going to a log file."""
        return Command(self._process, ["airflow", *arguments], log)

    @cached_property
    def _process(self) -> subprocess.Popen[str]:
        """The process that is forked. It ends with this one, when nothing holds its standard input any more."""
        with (self.folder / "imports.log").open("wb") as log:
            command = [sys.executable, "-m", "tests.warm_airflow"]
            pipe = subprocess.PIPE
            return subprocess.Popen(command, env=self.environment, stdin=pipe, stdout=pipe, stderr=log, text=True)


class Command:
    """A command that runs, or has run, in a fork."""

    def __init__(self, process: subprocess.Popen[str], args: list[str], log: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.args = args
        self.returncode: int | None = None
        self._told = process.stdout
        log.write_bytes(b"")
        process.stdin.write(json.dumps([args, str(log)]) + "\n")
        process.stdin.flush()
        self.pid = int(self._told.readline())

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when there is one, negative where a signal has ended it."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.readline())
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code if there is one yet."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)


def _serve() -> None:
    """Run each command that standard input names in a fork, and tell its process id and how it ended."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # some versions log to standard output while they are imported
    for name in _IMPORTED:
        importlib.import_module(name)
    asyncio.run(_build_execution_api())
    for line in sys.stdin:
        arguments, log = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = _run(arguments, log)
            # Such as OpenLineage's pool, which ends as Python does: a fork that goes without would leave it for good.
            for left in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    left.kill()
            os._exit(code)
        told.write(f"{pid}\n")
        told.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")


async def _build_execution_api() -> None:
    """Build the API that tasks speak to, in all its versions, which takes a second or more.

    Airflow does so at the first request of each command, and before 3.3 of each task.
    """
    supervisor: Any = importlib.import_module("airflow.sdk.execution_time.supervisor")
    api = supervisor.in_process_api_server()
    supervisor.in_process_api_server = lambda: api
    async with httpx.AsyncClient(transport=api.atransport, base_url="http://in-process") as client:
        await client.get("/health")


def _run(arguments: list[str], log: str) -> int:
    """Be an ``airflow`` command, and return its exit code."""
    files = (os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND))
    for number, file in enumerate((*files, files[1])):
        os.dup2(file, number)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = arguments
    try:
        importlib.import_module("airflow.__main__").main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
    os._exit(0)  # the API has threads that would be waited for
