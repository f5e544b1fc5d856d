"""``python -m clip_operator`` in a process of its own, which is there in a moment."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import tempfile
import termios
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import FileIO
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


def run_on_terminal(*arguments: str, columns: int = 80, **variables: str) -> tuple[int, str]:
    """Run a command at a terminal to its end; return its exit code, and all that was written to the screen."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = start(*arguments, stdin=terminal, stdout=terminal, stderr=terminal, **variables)
    os.close(terminal)
    with os.fdopen(screen, "rb", buffering=0) as reading:
        written = b"".join(_until_it_is_left(reading))
    process.join()
    assert process.exitcode is not None, "ended"
    return process.exitcode, written.decode().replace("\r\n", "\n")


def _until_it_is_left(screen: FileIO) -> Iterator[bytes]:
    with suppress(OSError):  # which Linux says when the last process has closed the terminal
        while data := screen.read(1 << 16):
            yield data
