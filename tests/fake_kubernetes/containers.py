"""One container at a time: it is made, begins, is asked to stop, and ends."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from .environment import container_environment
from .images import find_image
from .objects import Json, time_text
from .orders import container_order
from .pods import Container, Pod
from .runtimes import ContainerOrder, ContainerRefusedError, Exit, Runtime, StartError
from .store import Store

_SECONDS_BETWEEN_TRIES = 0.5
_MESSAGE_BYTES = 4096
_MESSAGE_BYTES_FROM_LOG = 2048
_MESSAGE_LINES_FROM_LOG = 80


class Containers:
    """Runs containers with a runtime, and writes into the store how they fare."""

    def __init__(self, folder: Path, store: Store, runtime: Runtime) -> None:
        self._folder = folder
        self._store = store
        self._runtime = runtime

    async def run(self, pod: Pod, container: Container) -> None:
        """Run a container to its end; none begins in a pod that is asked to stop."""
        try:
            self._wait_with(pod, container, "ContainerCreating")
            order = None
            while order is None and not pod.stopping and container.exit_code is None:
                order = await self._start(pod, container)
            if order is not None:
                await self._follow(pod, container, order)
        finally:
            container.begun.set()

    async def _start(self, pod: Pod, container: Container) -> ContainerOrder | None:
        """Start a container; where it is refused for now, let time pass."""
        started = time_text(self._store.clock.now())
        try:
            await find_image(pod, container, self._runtime, self._store)
            values = container_environment(container.spec, pod.as_json(), self._store.secrets, self._store.config_maps)
            order = container_order(pod, container, values, self._folder / pod.uid)
            container.running = await self._runtime.start(order, container.log)
        except ContainerRefusedError as refusal:
            self._wait_with(pod, container, refusal.reason, refusal.message)
            if refusal.reason.startswith("Create"):
                self._store.add_event(pod, "Failed", f"Error: {refusal.message}", of=container)
            await until_stopping(pod, self._store, _SECONDS_BETWEEN_TRIES)
            return None
        except StartError as error:
            message = f"failed to create containerd task: {error}"
            self._store.add_event(pod, "Failed", f"Error: {message}", of=container)
            self._terminate(pod, container, started, Exit(128), {"reason": "StartError", "message": message})
            return None
        container.state = {"running": {"startedAt": started}}
        container.begun.set()
        self._store.add_event(pod, "Created", f"Created container {container.name}", of=container)
        self._store.add_event(pod, "Started", f"Started container {container.name}", of=container)
        self._store.touch(pod)
        return order

    async def _follow(self, pod: Pod, container: Container, order: ContainerOrder) -> None:
        assert container.running is not None
        started = container.state["running"]["startedAt"]
        ending = asyncio.create_task(stop(container, pod.grace)) if pod.grace is not None else None
        end = await container.running.wait()
        container.log.flush()
        killed_for_memory = container.out_of_memory or end.out_of_memory
        reason = "OOMKilled" if killed_for_memory else "Error" if end.code else "Completed"
        last_words = _termination_message(container, order.termination_log.host, end.code)
        self._terminate(pod, container, started, end, {"reason": reason, **last_words})
        if ending is not None:
            await ending

    def _terminate(self, pod: Pod, container: Container, started: str, end: Exit, more: Json) -> None:
        container.state = {
            "terminated": {
                "exitCode": end.code,
                **more,
                "startedAt": started,
                "finishedAt": time_text(self._store.clock.now()),
                "containerID": f"fake://{pod.uid}/{container.name}",
            }
        }
        container.ended.set()
        container.log.close()
        self._store.touch(pod)

    def _wait_with(self, pod: Pod, container: Container, reason: str, message: str | None = None) -> None:
        state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        if container.state != state:
            container.state = state
            self._store.touch(pod)


async def stop(container: Container, grace: int) -> None:
    """End a container that runs: with SIGTERM, and once the grace period, in seconds, is over, with SIGKILL."""
    assert container.running is not None
    if grace > 0:
        if not container.asked_to_stop:
            container.asked_to_stop = True
            await container.running.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(container.ended.wait(), grace)
            return
    await container.running.signal(signal.SIGKILL)


async def until_stopping(pod: Pod, store: Store, seconds: float) -> None:
    """Wait until a pod is asked to stop, but no longer than so many seconds."""

    async def stopping() -> None:
        while not pod.stopping:
            await store.changes.wait()

    with suppress(TimeoutError):
        await asyncio.wait_for(stopping(), seconds)


def _termination_message(container: Container, file: Path, code: int) -> Json:
    """Return the message that a container left in its file, or else the end of its log if that is asked for."""
    message = file.read_bytes()[-_MESSAGE_BYTES:]
    if not message and code and container.spec["terminationMessagePolicy"] == "FallbackToLogsOnError":
        lines = [line.text for line in container.log.lines[-_MESSAGE_LINES_FROM_LOG:]]
        message = b"".join(lines)[-_MESSAGE_BYTES_FROM_LOG:]
    return {"message": message.decode(errors="replace")} if message else {}
