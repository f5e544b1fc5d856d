"""Containers that run a Python module, begun as forks of a process that has imported it already."""

from __future__ import annotations

import asyncio
import importlib
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

_READ_THE_ENVIRONMENT = {"huggingface_hub.constants"}


def forks(processes: ForkServerContext) -> Start:
    """Return what starts ``python -m MODULE …`` as a fork: in a moment, where an interpreter imports for seconds.

    The process has a session, an environment, a working directory, arguments and an output of its own, as if it were a
    new interpreter. What its modules made of the environment when they were imported is the forked process's, but for
    the settings of the hub's library.
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
            target=run_module,
            args=(module, arguments, {1: writing, 2: writing}, dict(environment), directory),
            daemon=True,
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


def run_module(
    module: str,
    arguments: Sequence[str],
    files: Mapping[int, Connection],
    environment: Mapping[str, str],
    directory: Path | None,
) -> None:
    """Be ``python -m MODULE …``, in a process that was forked for it.

    :param files: what its standard input, output and error are, by their numbers.
    """
    os.setsid()
    for number, file in files.items():
        os.dup2(file.fileno(), number)
    for file in files.values():
        file.close()
    if 0 in files:
        sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has made it a file that is empty
    if directory is not None:
        os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    for name in _READ_THE_ENVIRONMENT & sys.modules.keys():
        importlib.reload(sys.modules[name])
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
