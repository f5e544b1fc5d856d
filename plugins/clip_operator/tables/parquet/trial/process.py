"""The process that decodes Parquet on trial, as the process sees it that will decode it in earnest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.machine.stopping import check_not_stopped
from clip_operator.proof.signing import environment_without_key
from clip_operator.tables.parquet.trial.limits import MEBIBYTES

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from clip_operator.tables.parquet.trial.child import main; main()"
_SECONDS_TO_NOTICE_STOP = 0.2

# Arrow's own allocators reserve address space far ahead of what they use, and so does glibc for every thread.
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}


class Attempt:
    """Something that is decoded on trial, or waits for its turn."""

    def __init__(self, path: Path, group: int | None, rows: int) -> None:
        self.task = json.dumps({"path": str(path), "group": group, "rows": rows})
        self.answer: Future[str | None]


class Trial:
    """Decodes Parquet in a process with a limit to its memory, and says whether it could.

    The process starts when it is first needed, and again where it did not survive; it ends with this one. It does one
    thing at a time, in the order in which it was asked. All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._process: subprocess.Popen[str] | None = None
        self._doing: Attempt | None = None
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clip-trial")

    def footer(self, path: Path, group: int | None = None) -> None:
        """Refuse a file whose footer, and the first row of a row group, cannot be read in bounded memory.

        :param group: the first one by default.
        :raises JobError: they cannot.
        :raises Cancelled: the work was told to stop.
        """
        self.wait_for(self.begin(path, group, rows=0), "Its footer and first row")

    def begin(self, path: Path, group: int | None, rows: int) -> Attempt:
        """Begin to decode a row group, a batch of at most so many rows at a time; of 0 rows the footer alone.

        What is not waited for is to be dropped.
        """
        attempt = Attempt(path, group, rows)
        attempt.answer = self._thread.submit(self._do, attempt)
        return attempt

    def wait_for(self, attempt: Attempt, what: str) -> None:
        """Wait for what :meth:`begin` began.

        :param what: is decoded, to begin a sentence with.
        :raises JobError: it does not fit into the memory that it may take, or is damaged.
        :raises Cancelled: the work was told to stop.
        """
        try:
            while not wait((attempt.answer,), _SECONDS_TO_NOTICE_STOP).done:
                check_not_stopped()
        finally:
            self.drop(attempt)
        problem = attempt.answer.result()
        if problem is None:
            raise JobError(
                f"{what} cannot be decoded in {MEBIBYTES:,} MiB of memory: the Parquet file is small, and what it "
                "unfolds to is not. Write it with smaller values, and with fewer rows in a row group"
            )
        if problem:
            raise JobError(problem)

    def drop(self, attempt: Attempt) -> None:
        """End what was begun, if it is not done: the answer is not wanted any more."""
        attempt.answer.cancel()
        with self._lock:
            if self._doing is attempt and self._process is not None:
                self._process.kill()

    def _do(self, attempt: Attempt) -> str | None:
        """Return what is wrong, "" for nothing, and None if the process ended."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _started()
            process, self._doing = self._process, attempt
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(attempt.task + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        with self._lock:
            self._doing = None
            if answer:
                return str(json.loads(answer))
            process.kill()
            process.communicate()  # it ended as it could not allocate, or crashed
            return None


def _started() -> subprocess.Popen[str]:
    # Its own copy of this package, wherever that lies, and nothing that runs at the start of an interpreter.
    path = [str(Path(__file__).parents[4]), *sys.path]
    return subprocess.Popen(  # noqa: S603 (this very interpreter)
        [sys.executable, "-I", "-S", "-c", _PROGRAM, *path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where Arrow says what it could not allocate, before it ends the process
        text=True,
        env=environment_without_key() | _ENVIRONMENT,
    )


_trial: Trial | None = None


def shared_trial() -> Trial:
    """Return the one trial of this process."""
    global _trial
    if _trial is None or _trial.pid != os.getpid():  # that of the process which this one was forked from
        _trial = Trial()
    return _trial
