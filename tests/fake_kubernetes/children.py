"""Child processes of the server whose output goes to a log."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from .logs import Log

_SECONDS_FOR_LAST_OUTPUT = 2


class ChildProcess(Protocol):
    """A child process, as asyncio has it."""

    @property
    def pid(self) -> int:
        """Its id, which is also that of its process group."""

    async def wait(self) -> int:
        """Wait for its end; return its exit code, or of a signal that ended it the negative number."""

    def send_signal(self, number: signal.Signals, /) -> None:
        """Signal it.

        :raises ProcessLookupError: it has ended.
        """


class Start(Protocol):
    """A way to start a child process in a session of its own."""

    async def __call__(
        self, words: Sequence[str], output: int, environment: Mapping[str, str], directory: Path | None, /
    ) -> ChildProcess:
        """Start a program.

        :param output: a file descriptor for its stdout and stderr, which stays the caller's.
        :raises OSError: it cannot be started.
        """


async def program(
    words: Sequence[str], output: int, environment: Mapping[str, str], directory: Path | None
) -> ChildProcess:
    """Start a program from its file."""
    return await asyncio.create_subprocess_exec(
        *words,
        env=environment,
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


class Child:
    """A child process in a session of its own, with stdout and stderr in one pipe so that their order is kept."""

    def __init__(self, process: ChildProcess, transport: asyncio.BaseTransport, output: _Output) -> None:
        self.process = process
        self._transport = transport
        self._output = output

    @classmethod
    async def start(
        cls,
        words: Sequence[str],
        log: Log,
        environment: Mapping[str, str],
        directory: Path | None = None,
        start: Start = program,
    ) -> Child:
        """Start a program.

        :raises OSError: it cannot be started.
        """
        reading, writing = os.pipe()
        output = _Output(log)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: output, os.fdopen(reading, "rb", buffering=0)
        )
        try:
            process = await start(words, writing, environment, directory)
        except OSError:
            transport.close()
            raise
        finally:
            os.close(writing)
        return cls(process, transport, output)

    async def read_rest(self) -> None:
        """Wait for what it wrote before its end."""
        # A process that it left behind may hold the pipe for ever.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._output.ended.wait(), _SECONDS_FOR_LAST_OUTPUT)
        self._transport.close()


class _Output(asyncio.Protocol):
    """Passes on what comes out of a pipe."""

    def __init__(self, log: Log) -> None:
        self.ended = asyncio.Event()
        self._log = log

    def data_received(self, data: bytes) -> None:
        self._log.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended.set()
