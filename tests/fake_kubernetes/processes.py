"""Containers as ordinary child processes: quick, and without any privilege."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .children import Child, Start, program
from .logs import Log
from .runtimes import ContainerOrder, ContainerRefusedError, Exit, StartError


@dataclass(frozen=True)
class Image:
    """What stands in for an image: the environment that its processes start with."""

    environment: Mapping[str, str]
    """For example the PATH on which ``python`` is found."""

    entrypoint: Sequence[str] = ()
    """What a container runs that has no command of its own."""

    start: Start = program
    """How its processes begin."""


class Processes:
    """Runs every container as a child process in a session of its own.

    The process sees the image's environment with the container's over it, and nothing else of the environment
    that the tests run in. Its working directory is a folder of the pod. When it ends, its process group is killed,
    as a container ends with its first process.

    There are no namespaces, hence no mounts. Instead, wherever a volume's mountPath or the terminationMessagePath
    begins a path in the command, an argument, the value of an environment variable or the working directory, it is
    replaced by the real path on this machine: ``--out=/data/x`` becomes ``--out=/tmp/…/volumes/data/x``, whereas
    ``s3://bucket/data`` and ``/database`` stay as they are. The image's environment is taken as it is.

    Users, capabilities, memory limits and read-only mounts are not imposed, and a process without a handler for
    SIGTERM ends by it, whereas the first process of a real container is deaf to it.
    """

    def __init__(self, images: Mapping[str, Image]) -> None:
        self._images = dict(images)

    async def has_image(self, image: str) -> bool:
        """Say whether the image was given."""
        return image in self._images

    async def start(self, order: ContainerOrder, log: Log) -> RunningProcess:
        """Start the process; its output goes to ``log``."""
        image = self._images[order.image]
        words = [*(order.command or image.entrypoint), *order.arguments]
        if not words:
            raise ContainerRefusedError("CreateContainerError", "no command specified")
        places = {mount.path: mount.host for mount in [*order.mounts, order.termination_log]}
        own = {name: real_paths(value, places) for name, value in order.environment.items()}
        directory = order.folder / "work"
        directory.mkdir(exist_ok=True)
        if order.working_directory is not None:
            directory = Path(real_paths(order.working_directory, places))
        try:
            child = await Child.start(
                [real_paths(word, places) for word in words],
                log,
                {**image.environment, **own},
                directory,
                image.start,
            )
        except OSError as error:
            raise StartError(f'exec: "{words[0]}": {error.strerror}') from error
        return RunningProcess(child)


class RunningProcess:
    """A container that is a child process."""

    def __init__(self, child: Child) -> None:
        self._child = child

    async def wait(self) -> Exit:
        """Wait for its end, kill what it left in its process group, and read the rest of its output."""
        code = await self._child.process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._child.process.pid, signal.SIGKILL)
        await self._child.read_rest()
        return Exit(code if code >= 0 else 128 - code)

    async def signal(self, number: signal.Signals) -> None:
        """Signal the process, but not its children, as container runtimes do."""
        with suppress(ProcessLookupError):
            self._child.process.send_signal(number)


def real_paths(text: str, places: Mapping[str, Path]) -> str:
    """Replace the containers' paths in a text by real ones, wherever they begin a path."""
    paths = {path.rstrip("/"): str(host) for path, host in places.items()}
    longest_first = sorted(map(re.escape, paths), key=len, reverse=True)
    beginning = r"(?:(?<=file://)|(?<![\w./~-]))"
    pattern = f"{beginning}({'|'.join(longest_first)})(?![\\w.~-])"
    return re.sub(pattern, lambda match: paths[match[1]], text)
