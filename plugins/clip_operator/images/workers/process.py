"""One worker process, as the process of the model sees it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_operator.images.workers.task import ImageTask
from clip_operator.images.workers.wire import Answers, Pixels, ToWorker, packed
from clip_operator.proof.signing import environment_without_key

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[4:]; from clip_operator.images.workers.child import main; "
    "main(*map(int, sys.argv[1:4]))"
)
_RECEIVED_BYTES = 1 << 18
_SECONDS_TO_END = 5

# The first is obstore's. The rest is for glibc: a thread that allocates would reserve 64 MiB of address space, which is
# bounded while an image is decoded; and the memory of one image would be given back before the next one takes it, a
# sixth of the time that a small one takes.
_ENVIRONMENT = {
    "TOKIO_WORKER_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class WorkerProcess:
    """Starts a worker. All methods belong to one thread.

    :param memory: the descriptor of the shared memory.
    :param index: the number of its mark there.
    """

    def __init__(self, memory: int, index: int) -> None:
        self.index = index
        self.tasks: dict[int, ImageTask] = {}
        """What it has been told to do and has not answered, by number, in that order."""
        self.pixels: Pixels | None = None
        """How it was told to give pixels."""
        self.alone_for: ImageTask | None = None
        """The image that it is kept free for, or does alone."""
        self.has_answered = False
        """It came as far as to do something."""
        self._answers = Answers()
        self._unsent = bytearray()
        own, its = socket.socketpair()
        with its:
            # Its own copy of this package, wherever that lies, and nothing that runs at the start of an interpreter.
            path = [str(Path(__file__).parents[3]), *sys.path]
            self._process = subprocess.Popen(  # noqa: S603 (this very interpreter)
                [sys.executable, "-I", "-S", "-c", _PROGRAM, *map(str, (its.fileno(), memory, index)), *path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(its.fileno(), memory),
                # What decodes hostile bytes is not given the key that tells what others have written from our own.
                env=environment_without_key() | _ENVIRONMENT,
            )
        own.setblocking(False)
        self.socket = own

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def has_unsent(self) -> bool:
        """Whether there is more to send than the socket took."""
        return bool(self._unsent)

    def tell(self, message: ToWorker) -> None:
        """Send a message, now or, by :meth:`send`, as soon as the socket takes it."""
        self._unsent += packed(message)
        self.send()

    def send(self) -> None:
        """Send what the socket takes. That a worker is gone shows when it is listened to."""
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(memoryview(self._unsent)[:_RECEIVED_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()

    def listen(self) -> Iterator[tuple[dict[str, Any], memoryview]] | None:
        """Return what it has said, or None if it will say no more.

        :raises ValueError: it said what is no message.
        """
        try:
            data = self.socket.recv(_RECEIVED_BYTES)
        except BlockingIOError:
            return iter(())
        except OSError:
            return None
        return self._answers.add(data) if data else None

    def end(self) -> int:
        """See to it that it has ended; return its exit status, negative for the signal that ended it."""
        self.socket.close()
        try:
            # It closes its socket when it ends, and in no other case. A process that was killed takes a moment.
            return self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it now; return its exit status."""
        self.socket.close()
        self._process.kill()
        return self._process.wait()


def described(status: int) -> str:
    """Return the name of the signal that ended a process, or its exit status, in words."""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"
