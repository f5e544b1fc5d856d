"""Loads checkpoints in a process of its own, which has little memory and time, and says how that ended."""

from __future__ import annotations

import os
import resource
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.model import choose_device, find_checkpoint, load_encoder
from clip_operator.storage import Storage
from tests.preloaded import PROCESSES

# Far above what loading a tiny checkpoint takes, far below what the hostile ones ask for.
MEMORY_BYTES = 1 << 30
ADDRESS_SPACE_BYTES = 6 << 30
PROCESSOR_SECONDS = 120


class Loader:
    """A process that loads one checkpoint after the other; another takes its place if one ends it."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None

    def load(self, folder: Path, text: str = "a red circle") -> str:
        """Load a checkpoint and encode a text; return the error's words, or none, having checked the memory it took."""
        if self._process is None:
            self._pipe, there = PROCESSES.Pipe()
            self._process = PROCESSES.Process(target=_serve, args=(there,))
            self._process.start()
            there.close()
        self._pipe.send((folder, text))
        try:
            message, grown = self._pipe.recv()
        except EOFError:
            ended = self.close()
            raise AssertionError(f"the process ended by {ended}") from None
        assert grown < MEMORY_BYTES, f"{grown >> 20} MiB for: {message}"
        return str(message)

    def close(self) -> int | None:
        """Let the process end, and return how it did."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        self._pipe.close()
        process.join()
        return process.exitcode


def _serve(pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ADDRESS_SPACE_BYTES,) * 2)
    os.environ["HF_HUB_OFFLINE"] = "1"
    while True:
        try:
            folder, text = pipe.recv()
        except EOFError:
            return
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before = _status("VmHWM")
        pipe.send((_load(folder, text), _status("VmHWM") - before))


def _load(folder: Path, text: str) -> str:
    try:
        encoder = load_encoder(find_checkpoint(str(folder), None, Storage()), choose_device("cpu"), "fp32")
        encoder.encode_texts(encoder.tokenize([text]))
    except JobError as error:
        return str(error)
    except BaseException as error:
        return f"not in words: {type(error).__name__}: {error}"
    return ""


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(field)
