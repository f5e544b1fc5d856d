"""A contestant: a process of its own that loads once, stays warm, and answers requests, a line of JSON each.

Standard library only: contestants in the libraries' own environment use this module too.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parent.parent

Settings = Mapping[str, Any]
Reply = dict[str, Any]
Answer = Callable[[Settings], Reply]


class ContestantFailed(Exception):
    """The process ended without an answer. The message holds the end of its log."""


class Contestant:
    """Starts a program of ``benchmarks.contestants`` and waits until it has loaded.

    :param module: its name in ``benchmarks.contestants``.
    :param settings: what it loads: JSON values.
    :param log: where its standard error goes.
    :param python: the interpreter; by default this one.
    :raises ContestantFailed: it did not load.
    """

    def __init__(self, module: str, settings: Settings, log: Path, python: str = sys.executable) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [python, "-m", f"benchmarks.contestants.{module}", json.dumps(settings)]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=REPOSITORY,
                env=_environment(log.parent.parent / "caches"),
            )
        try:
            self.loading = self._receive()
            """What it said when it had loaded; ``seconds`` among it."""
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> Reply:
        """Have it do one run; return what it measured.

        :raises ContestantFailed: it ended instead.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone; why is said below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._receive()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _receive(self) -> Reply:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            end = self._log.read_text(errors="replace")[-2000:]
            raise ContestantFailed(f"{self._process.args!r} ended with code {code}; the end of its log:\n{end}")
        reply: Reply = json.loads(line)
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve(load: Callable[[Settings], Answer]) -> None:
    """Be a contestant: load what the command line says, then answer requests until there are no more.

    :param load: gets the settings, returns what answers a request.
    """
    # Libraries print to standard output what is not for the benchmark to read.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    began = time.perf_counter()
    answer = load(json.loads(sys.argv[1]))
    _send(channel, {"seconds": time.perf_counter() - began})
    for line in sys.stdin:
        _send(channel, answer(json.loads(line)))


def peak_resident_bytes() -> int:
    """Return the most memory that this process has held at once.

    On Linux not by getrusage, whose figure a process inherits: it is at least what its parent held when it was started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _send(channel: Any, reply: Reply) -> None:
    channel.write(json.dumps(reply) + "\n")
    channel.flush()


def _environment(caches: Path) -> dict[str, str]:
    """This process's environment, without the user's AWS settings, caches and hub."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **inherited,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(caches / "huggingface"),
        "DATA_JUICER_CACHE_HOME": str(caches / "data-juicer"),
        "CLIP_OPERATOR_CACHE": str(caches / "clip-operator"),
        "TOKENIZERS_PARALLELISM": "false",
        "PIP_NO_INDEX": "1",  # nothing is to be installed in the middle of a measurement
        "UV_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
