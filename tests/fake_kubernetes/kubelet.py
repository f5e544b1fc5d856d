"""What a kubelet does with pods: mount their volumes, run their containers, and end them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from .containers import Containers, stop, until_stopping
from .objects import time_text
from .pods import Container, Pod, Verdict
from .runtimes import Runtime
from .scheduler import schedule
from .store import Store
from .volumes import MountError, set_up_volumes

SECONDS_TO_EVICT = 1
_SECONDS_BETWEEN_MOUNTS = 0.5
_SECONDS_TO_SHUT_DOWN = 30


class Kubelet:
    """Runs pods with a runtime, and writes into the store how they fare."""

    def __init__(self, folder: Path, store: Store, runtime: Runtime) -> None:
        self._folder = folder
        self._store = store
        self._containers = Containers(folder, store, runtime)
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
        if pod.deleting and grace >= pod.metadata["deletionGracePeriodSeconds"]:
            return  # a period may only be shortened
        pod.metadata["deletionTimestamp"] = time_text(time.time_ns() + grace * 1_000_000_000)
        pod.metadata["deletionGracePeriodSeconds"] = grace
        for container in _running(pod):
            self._tell_of_end(pod, container)
        if grace == 0:
            self._store.remove(pod)
        self.stop(pod, grace)

    def evict(self, pod: Pod, verdict: Verdict, grace: int = SECONDS_TO_EVICT) -> None:
        """End a pod for a reason of the kubelet's own; it stays in the API as failed."""
        if pod.ended:
            raise ValueError(f"pod {pod.name} has ended")
        pod.verdict = verdict
        self._store.add_event(pod, verdict.reason, verdict.message)
        self.stop(pod, grace)

    def stop(self, pod: Pod, grace: int) -> None:
        """End a pod's containers, and start no more of them."""
        pod.grace = grace
        for container in _running(pod):
            self._soon(stop(container, grace))
        self._store.touch(pod)

    def kill_for_memory(self, pod: Pod) -> None:
        """Kill a pod's containers as the kernel does when memory runs out."""
        running = _running(pod)
        if not running:
            raise ValueError(f"pod {pod.name} runs no container")
        for container in running:
            container.out_of_memory = True
            self._soon(stop(container, 0))

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
            await schedule(pod, self._store)
            if not pod.stopping:
                await self._run(pod)
        finally:
            pod.ended = True
            for container in pod.all_containers:
                container.log.close()
            if pod.deleting:
                self._store.remove(pod)
            self._store.touch(pod)

    def _tell_of_end(self, pod: Pod, container: Container) -> None:
        if not container.asked_to_stop:
            self._store.add_event(pod, "Killing", f"Stopping container {container.name}", of=container)

    async def _run(self, pod: Pod) -> None:
        deadline = pod.spec.get("activeDeadlineSeconds")
        if deadline is not None:
            asyncio.get_running_loop().call_later(deadline, self.end_overdue, pod)
        await self._mount_volumes(pod)
        sidecars = []
        for container in pod.init_containers:
            run = asyncio.create_task(self._containers.run(pod, container))
            if container.sidecar:
                sidecars.append(run)
                await container.begun.wait()
            else:
                await run
                if container.exit_code != 0:
                    break
        else:
            await asyncio.gather(*(self._containers.run(pod, container) for container in pod.containers))
        self._end_sidecars(pod)
        await asyncio.gather(*sidecars)

    async def _mount_volumes(self, pod: Pod) -> None:
        while not pod.stopping:
            try:
                set_up_volumes(pod, self._folder / pod.uid, self._store.secrets, self._store.config_maps)
            except MountError as error:
                self._store.add_event(pod, "FailedMount", str(error))
                await until_stopping(pod, self._store, _SECONDS_BETWEEN_MOUNTS)
            else:
                return

    def _end_sidecars(self, pod: Pod) -> None:
        for container in reversed(pod.sidecars):
            if "running" in container.state and not pod.stopping:
                self._tell_of_end(pod, container)
                self._soon(stop(container, pod.spec["terminationGracePeriodSeconds"]))

    def end_overdue(self, pod: Pod) -> None:
        """End a pod whose active deadline is over, if it has not ended."""
        early = self._store.deadlines_show_early
        words = "Pod was active on the node longer than the specified deadline"
        if not pod.ended:
            grace = pod.spec["terminationGracePeriodSeconds"] if early else SECONDS_TO_EVICT
            self.evict(pod, Verdict("DeadlineExceeded", words, early), grace)


def _running(pod: Pod) -> list[Container]:
    return [container for container in pod.all_containers if "running" in container.state]
