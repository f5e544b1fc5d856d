"""Containers that run a Python module, begun as forks of a process that has imported it already."""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from .children import ChildProcess, Start


def forks(processes: ForkServerContext) -> Start:
    """Return what starts ``python -m MODULE …`` as a fork: in a moment, where an interpreter imports for seconds.

    The process has a session, an environment, a working directory, arguments and an output of its own, as if it were a
    new interpreter. What its modules made of the environment when they were imported is the forked process's.
    """
    return partial(_start, processes)


async def _start(
    processes: ForkServerContext,
    words: Sequence[str],
    output: int,
    environment: Mapping[str, str],
    directory: Path | None,
) -> ChildProcess:
    python, option, module, *arguments = words
    if (python, option) != ("python", "-m"):
        raise FileNotFoundError(2, f"forks run modules, and not {python}")
    writing = Connection(os.dup(output), readable=False)  # which multiprocessing hands to the fork
    try:
        process = processes.Process(
            target=_run, args=(module, arguments, writing, dict(environment), directory), daemon=True
        )
        process.start()
    finally:
        writing.close()
    return _Fork(process)


class _Fork:
    """A fork, as asyncio has its child processes."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None, "started"
        self.pid = process.pid
        self._process = process

    async def wait(self) -> int:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._process.sentinel, ended.set)
        await ended.wait()
        loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None, "ended"
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def _run(
    module: str, arguments: list[str], output: Connection, environment: dict[str, str], directory: Path | None
) -> None:
    os.setsid()
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    if directory is not None:
        os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
