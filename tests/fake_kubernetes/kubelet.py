"""What a scheduler and a kubelet do with pods: find them room, run their containers, and end them."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from .environment import container_environment
from .objects import Json, time_text
from .orders import container_order
from .pods import NODE, Container, Pod, Verdict
from .runtimes import ContainerRefusedError, Exit, Runtime, StartError
from .store import Store

SECONDS_TO_EVICT = 1
_SECONDS_TO_BACK_OFF = 0.5
_SECONDS_TO_SHUT_DOWN = 30
_MESSAGE_BYTES = 4096
_MESSAGE_BYTES_FROM_LOG = 2048
_MESSAGE_LINES_FROM_LOG = 80
_IMAGE_NAME = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


class Kubelet:
    """Runs pods with a runtime, and writes into the store how they fare."""

    def __init__(self, folder: Path, store: Store, runtime: Runtime) -> None:
        self._folder = folder
        self._store = store
        self._runtime = runtime
        self._live: dict[Pod, asyncio.Task[None]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    def accept(self, pod: Pod) -> None:
        """Start to look after a pod."""
        task = asyncio.create_task(self._look_after(pod))
        self._live[pod] = task
        task.add_done_callback(lambda _: self._forget(pod))

    def delete(self, pod: Pod, grace: int) -> None:
        """Ask a pod to go: its containers get SIGTERM, and after the grace period, in seconds, SIGKILL.

        A pod that has ended or has no node yet, or whose grace period is nil, leaves the API at once.
        """
        if pod.ended or pod.start_time is None:
            grace = 0
        pod.metadata["deletionTimestamp"] = time_text(time.time_ns() + grace * 1_000_000_000)
        pod.metadata["deletionGracePeriodSeconds"] = grace
        for container in _running(pod):
            if not container.asked_to_stop:
                self._store.add_event(pod, "Killing", f"Stopping container {container.name}", of=container)
        if grace == 0:
            self._store.remove(pod)
        self.stop(pod, grace)

    def evict(self, pod: Pod, verdict: Verdict) -> None:
        """End a pod for a reason of the kubelet's own; it stays in the API as failed."""
        if pod.ended:
            raise ValueError(f"pod {pod.name} has ended")
        pod.verdict = verdict
        self._store.add_event(pod, verdict.reason, verdict.message)
        self.stop(pod, SECONDS_TO_EVICT)

    def stop(self, pod: Pod, grace: int) -> None:
        """End a pod's containers, and start no more of them."""
        pod.grace = grace
        for container in _running(pod):
            self._soon(_stop(container, grace))
        self._store.touch(pod)

    def kill_for_memory(self, pod: Pod) -> None:
        """Kill a pod's containers as the kernel does when memory runs out."""
        running = _running(pod)
        if not running:
            raise ValueError(f"pod {pod.name} runs no container")
        for container in running:
            container.out_of_memory = True
            self._soon(_stop(container, 0))

    async def shut_down(self) -> None:
        """End every container that still runs."""
        tasks = list(self._live.values())
        for pod in list(self._live):
            self.stop(pod, 0)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_SECONDS_TO_SHUT_DOWN)
            if left:
                raise RuntimeError(f"{len(left)} pods did not end when they were killed")
        await asyncio.gather(*self._errands)
        if self._errors:
            raise self._errors[0]

    def _forget(self, pod: Pod) -> None:
        error = self._live.pop(pod).exception()
        if error is not None:
            self._errors.append(error)

    def _soon(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _look_after(self, pod: Pod) -> None:
        try:
            await self._schedule(pod)
            if not pod.stopping:
                await self._run(pod)
        finally:
            pod.ended = True
            for container in pod.all_containers:
                container.log.close()
            if pod.deleting:
                self._store.remove(pod)
            self._store.touch(pod)

    async def _schedule(self, pod: Pod) -> None:
        while not pod.stopping:
            short = [name for name, wanted in pod.resources().items() if wanted > self._store.free(name)]
            if not short:
                pod.start_time = time_text(time.time_ns())
                where = f"{pod.namespace}/{pod.name} to {NODE}"
                self._store.add_event(pod, "Scheduled", f"Successfully assigned {where}")
                self._store.touch(pod)
                return
            if pod.unschedulable is None:
                pod.unschedulable = f"0/1 nodes are available: {', '.join(f'1 Insufficient {name}' for name in short)}."
                self._store.add_event(pod, "FailedScheduling", pod.unschedulable)
                self._store.touch(pod)
            else:
                await self._store.changes.wait()

    async def _run(self, pod: Pod) -> None:
        deadline = pod.spec.get("activeDeadlineSeconds")
        if deadline is not None:
            verdict = Verdict("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            asyncio.get_running_loop().call_later(deadline, self._end_overdue, pod, verdict)
        for container in pod.init_containers:
            await self._run_container(pod, container)
            if container.exit_code != 0:
                return
        await asyncio.gather(*(self._run_container(pod, container) for container in pod.containers))

    def _end_overdue(self, pod: Pod, verdict: Verdict) -> None:
        if not pod.ended:
            self.evict(pod, verdict)

    async def _run_container(self, pod: Pod, container: Container) -> None:
        if pod.stopping:
            return
        self._wait_with(pod, container, "ContainerCreating")
        started = time.time_ns()
        try:
            await self._find_image(pod, container)
            values = container_environment(container.spec, pod.as_json(), self._store.secrets, self._store.config_maps)
            order = container_order(pod, container, values, self._folder / pod.uid)
            container.running = await self._runtime.start(order, container.log)
        except ContainerRefusedError as refusal:
            self._wait_with(pod, container, refusal.reason, refusal.message)
            if refusal.reason.startswith("Create"):
                self._store.add_event(pod, "Failed", f"Error: {refusal.message}", of=container)
            await self._until_stopping(pod)
            return
        except StartError as error:
            message = f"failed to create containerd task: {error}"
            self._store.add_event(pod, "Failed", f"Error: {message}", of=container)
            self._terminate(pod, container, started, Exit(128), {"reason": "StartError", "message": message})
            return
        container.state = {"running": {"startedAt": time_text(started)}}
        self._store.add_event(pod, "Created", f"Created container {container.name}", of=container)
        self._store.add_event(pod, "Started", f"Started container {container.name}", of=container)
        self._store.touch(pod)
        if pod.grace is not None:
            self._soon(_stop(container, pod.grace))
        end = await container.running.wait()
        container.log.flush()
        killed_for_memory = container.out_of_memory or end.out_of_memory
        reason = "OOMKilled" if killed_for_memory else "Error" if end.code else "Completed"
        last_words = _termination_message(container, order.termination_log.host, end.code)
        self._terminate(pod, container, started, end, {"reason": reason, **last_words})

    def _terminate(self, pod: Pod, container: Container, started: int, end: Exit, more: Json) -> None:
        container.state = {
            "terminated": {
                "exitCode": end.code,
                **more,
                "startedAt": time_text(started),
                "finishedAt": time_text(time.time_ns()),
                "containerID": f"fake://{pod.uid}/{container.name}",
            }
        }
        container.ended.set()
        container.log.close()
        self._store.touch(pod)

    def _wait_with(self, pod: Pod, container: Container, reason: str, message: str | None = None) -> None:
        container.state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        self._store.touch(pod)

    async def _until_stopping(self, pod: Pod) -> None:
        while not pod.stopping:
            await self._store.changes.wait()

    async def _find_image(self, pod: Pod, container: Container) -> None:
        image, policy = container.spec["image"], container.spec["imagePullPolicy"]
        add_event = self._store.add_event
        if not _IMAGE_NAME.fullmatch(image):
            message = (
                f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": '
                "invalid reference format"
            )
            add_event(pod, "InspectFailed", message, of=container)
            raise ContainerRefusedError("InvalidImageName", message)
        if await self._runtime.has_image(image):
            add_event(pod, "Pulled", f'Container image "{image}" already present on machine', of=container)
            return
        if policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            add_event(pod, "Failed", message, of=container)
            raise ContainerRefusedError("ErrImageNeverPull", message)
        problem = (
            f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
        )
        message = f'Failed to pull image "{image}": rpc error: code = NotFound desc = {problem}'
        add_event(pod, "Pulling", f'Pulling image "{image}"', of=container)
        add_event(pod, "Failed", message, of=container)
        add_event(pod, "Failed", "Error: ErrImagePull", of=container)
        self._wait_with(pod, container, "ErrImagePull", message)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._until_stopping(pod), _SECONDS_TO_BACK_OFF)
        message = f'Back-off pulling image "{image}"'
        add_event(pod, "BackOff", message, of=container)
        add_event(pod, "Failed", "Error: ImagePullBackOff", of=container)
        raise ContainerRefusedError("ImagePullBackOff", message)


async def _stop(container: Container, grace: int) -> None:
    assert container.running is not None
    if grace > 0:
        if not container.asked_to_stop:
            container.asked_to_stop = True
            await container.running.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(container.ended.wait(), grace)
            return
    await container.running.signal(signal.SIGKILL)


def _running(pod: Pod) -> list[Container]:
    return [container for container in pod.all_containers if "running" in container.state]


def _termination_message(container: Container, file: Path, code: int) -> Json:
    """Return the message that a container left in its file, or else the end of its log if that is asked for."""
    message = file.read_bytes()[-_MESSAGE_BYTES:]
    if not message and code and container.spec["terminationMessagePolicy"] == "FallbackToLogsOnError":
        lines = [line.text for line in container.log.lines[-_MESSAGE_LINES_FROM_LOG:]]
        message = b"".join(lines)[-_MESSAGE_BYTES_FROM_LOG:]
    return {"message": message.decode(errors="replace")} if message else {}
