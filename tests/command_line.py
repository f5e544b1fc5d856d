"""``python -m clip_operator`` in a process of its own, which is there in a moment."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.fake_kubernetes.forks import run_module
from tests.preloaded import PROCESSES


def start(*arguments: str, stdin: int, stdout: int, stderr: int, **variables: str) -> BaseProcess:
    """Start the command line as a fork of a process that has imported its modules.

    :param stdin: a file descriptor, which stays the caller's, as the others do.
    :param variables: environment variables beyond those of the test.
    """
    with ExitStack() as handed_over:
        files = {
            number: handed_over.enter_context(Connection(os.dup(file), readable=number == 0, writable=number != 0))
            for number, file in {0: stdin, 1: stdout, 2: stderr}.items()
        }
        process = PROCESSES.Process(
            target=run_module, args=("clip_operator", arguments, files, {**os.environ, **variables}, Path.cwd())
        )
        process.start()
    return process


def run(*arguments: str, stdin: str = "", **variables: str) -> tuple[int, str, str]:
    """Run a command to its end; return its exit code, its output, and its log."""
    with ExitStack() as opened:
        given, out, log = (opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        process = start(*arguments, stdin=given.fileno(), stdout=out.fileno(), stderr=log.fileno(), **variables)
        process.join()
        assert process.exitcode is not None, "ended"
        for file in (out, log):
            file.seek(0)
        return process.exitcode, out.read(), log.read()
