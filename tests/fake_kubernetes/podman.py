"""Containers as podman runs them: real images, users, limits and mounts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator, Mapping

from .children import Child
from .logs import Log
from .objects import Json
from .runtimes import ContainerOrder, ContainerRefusedError, Exit, Mount, StartError

_NEVER = "0001-01-01"
_KILLED = 128 + signal.SIGKILL


class Podman:
    """Runs every container with podman, on the host's network and from images that are there already.

    A volume in memory is a tmpfs of the one container, not shared among the containers of its pod.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Run podman with these variables, such as ``CONTAINERS_CONF``, beside those of this process."""
        self._environment = {**os.environ, **environment}

    async def has_image(self, image: str) -> bool:
        """Say whether the image is in podman's store."""
        code, _ = await self.call("image", "exists", image)
        return code == 0

    async def start(self, order: ContainerOrder, log: Log) -> RunningContainer:
        """Create a container and start it; its output goes to ``log``."""
        if order.security.get("runAsNonRoot"):
            await self._check_user(order)
        code, answer = await self.call("create", "--name", order.id, *_options(order), order.image, *_words(order))
        if code != 0:
            raise ContainerRefusedError("CreateContainerError", answer)
        # Attached before it starts, so that none of its output is missed.
        # Not in this process's working directory, where podman's monitor leaves a file when memory runs out.
        child = await Child.start(["podman", "start", "--attach", order.id], log, self._environment, order.folder)
        container = RunningContainer(self, order, child)
        if not await container.started():
            await child.read_rest()
            await container.remove()
            log.flush()
            # What is in the log now is podman's word, not the container's.
            message = log.text.strip()
            log.lines.clear()
            raise StartError(message)
        return container

    async def call(self, *words: str) -> tuple[int, str]:
        """Call podman; return its exit code and what it wrote."""
        process = await asyncio.create_subprocess_exec(
            "podman",
            *words,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace").strip()

    async def _check_user(self, order: ContainerOrder) -> None:
        user = order.security.get("runAsUser")
        if user is None:
            _, text = await self.call("image", "inspect", "--format", "{{.Config.User}}", order.image)
            name = text.partition(":")[0]
            if name and not name.isdigit():
                doubt = f"image has non-numeric user ({name}), cannot verify user is non-root"
                why = f"container has runAsNonRoot and {doubt}"
            else:
                why = "container has runAsNonRoot and image will run as root"
            is_root = not name.isdigit() or int(name) == 0
        else:
            why = "container's runAsUser breaks non-root policy"
            is_root = user == 0
        if is_root:
            raise ContainerRefusedError("CreateContainerConfigError", why)


class RunningContainer:
    """A container that podman runs."""

    def __init__(self, podman: Podman, order: ContainerOrder, child: Child) -> None:
        self._podman = podman
        self._id = order.id
        self._memory_is_limited = order.memory_limit is not None
        self._child = child
        self._killed = False
        self._running = asyncio.create_task(
            podman.call("wait", "--condition", "running", "--interval", "20ms", order.id)
        )

    async def started(self) -> bool:
        """Wait until it runs, has ended, or could not be started, which is when False is returned."""
        ended = asyncio.create_task(self._child.process.wait())
        await asyncio.wait([self._running, ended], return_when=asyncio.FIRST_COMPLETED)
        return self._running.done() or not str((await self._state())["StartedAt"]).startswith(_NEVER)

    async def wait(self) -> Exit:
        """Wait for its end and remove it."""
        await self._child.process.wait()
        await self._child.read_rest()
        state = await self._state()
        await self.remove()
        code = int(state["ExitCode"])
        # Podman does not learn of it from every version of cgroups, but then nobody else sends SIGKILL.
        killed_by_kernel = code == _KILLED and self._memory_is_limited and not self._killed
        return Exit(code, out_of_memory=bool(state["OOMKilled"]) or killed_by_kernel)

    async def signal(self, number: signal.Signals) -> None:
        """Signal its first process."""
        self._killed = self._killed or number == signal.SIGKILL
        await self._podman.call("kill", "--signal", number.name, self._id)

    async def remove(self) -> None:
        """Remove it, which also ends the wait for its start."""
        await self._podman.call("rm", "--force", self._id)
        await self._running

    async def _state(self) -> Json:
        _, text = await self._podman.call("container", "inspect", "--format", "{{json .State}}", self._id)
        state: Json = json.loads(text)
        return state


def _words(order: ContainerOrder) -> list[str]:
    return [*order.command[1:], *order.arguments] if order.command else list(order.arguments)


def _options(order: ContainerOrder) -> Iterator[str]:
    # No pulling, none of the proxies of this machine, and no tmpfs that a cluster would not add.
    yield from ("--network", "host", "--pull", "never", "--http-proxy=false", "--read-only-tmpfs=false")
    if order.command:
        yield from ("--entrypoint", json.dumps(order.command[:1]))
    for name, value in order.environment.items():
        yield from ("--env", f"{name}={value}")
    for mount in [*order.mounts, order.termination_log]:
        yield from ("--mount", _mount(mount))
    if order.working_directory is not None:
        yield from ("--workdir", order.working_directory)
    if order.memory_limit is not None:
        yield from ("--memory", str(order.memory_limit), "--memory-swap", str(order.memory_limit))
    yield from _security_options(order.security)


def _security_options(security: Json) -> Iterator[str]:
    if "runAsUser" in security:
        group = security.get("runAsGroup")
        yield from ("--user", str(security["runAsUser"]) + ("" if group is None else f":{group}"))
    if security.get("readOnlyRootFilesystem"):
        yield "--read-only"
    if security.get("allowPrivilegeEscalation") is False:
        yield from ("--security-opt", "no-new-privileges")
    capabilities = security.get("capabilities") or {}
    for name in capabilities.get("drop") or []:
        yield from ("--cap-drop", name)
    for name in capabilities.get("add") or []:
        yield from ("--cap-add", name)


def _mount(mount: Mount) -> str:
    if mount.in_memory:
        limit = "" if mount.size is None else f",tmpfs-size={mount.size}"
        return f"type=tmpfs,destination={mount.path},tmpfs-mode=1777,notmpcopyup{limit}"
    access = ",ro=true" if mount.read_only else ""
    return f"type=bind,source={mount.host},destination={mount.path}{access}"
