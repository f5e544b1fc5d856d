"""What the fake kubelet asks of whatever runs its containers."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .logs import Log
from .objects import Json


class ContainerRefusedError(Exception):
    """A container cannot be made, so it waits with a reason: ``CreateContainerConfigError`` and the like."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class StartError(Exception):
    """A container was made, but its program cannot be started."""


@dataclass(frozen=True)
class Mount:
    """A volume at a place in a container."""

    host: Path
    path: str
    read_only: bool = False
    in_memory: bool = False
    size: int | None = None
    """How many bytes it may hold, where that is limited."""


@dataclass(frozen=True)
class ContainerOrder:
    """A container to start: every reference is resolved and every ``$(VAR)`` expanded."""

    id: str
    """Unique, and fit for a file's name."""

    folder: Path
    """A folder that is the pod's own."""

    image: str
    command: Sequence[str]
    arguments: Sequence[str]
    environment: Mapping[str, str]
    working_directory: str | None
    mounts: Sequence[Mount]
    termination_log: Mount
    """The file that the container may leave a last message in."""

    security: Json
    """The pod's securityContext with the container's over it."""

    memory_limit: int | None


@dataclass(frozen=True)
class Exit:
    """How a container ended."""

    code: int
    out_of_memory: bool = False


class RunningContainer(Protocol):
    """A container that was started."""

    async def wait(self) -> Exit:
        """Wait until it has ended, none of its processes is left and its whole output is in the log."""

    async def signal(self, number: signal.Signals) -> None:
        """Signal its first process; nothing happens where it has ended."""


class Runtime(Protocol):
    """Runs containers."""

    async def has_image(self, image: str) -> bool:
        """Say whether the image exists."""

    async def start(self, order: ContainerOrder, log: Log) -> RunningContainer:
        """Start a container whose output goes to ``log``.

        :raises ContainerRefusedError: the container cannot be made.
        :raises StartError: its program cannot be started.
        """
