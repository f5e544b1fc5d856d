"""What the cluster holds: pods, events, secrets and config maps."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from contextlib import suppress

from .clock import Clock
from .logs import Broadcast
from .objects import Json, time_text
from .pods import NODE, Container, Pod


class Store:
    """Everything that the API shows. It belongs to the server's event loop, except where something else is said."""

    def __init__(self) -> None:
        self.namespaces = {"default"}
        self.secrets: dict[str, dict[str, str]] = {}
        self.config_maps: dict[str, dict[str, str]] = {}
        self.claims: set[str] = set()
        self.pull_problems: dict[str, str] = {}
        self.capacity = {"nvidia.com/gpu": 1}
        self.pods: dict[tuple[str, str], Pod] = {}
        self.all_pods: list[Pod] = []
        """Every pod that ever was, the oldest first."""

        self.created: list[Json] = []
        self.requests: list[tuple[str, str]] = []
        self.events: list[Json] = []
        self.clock = Clock()
        self.deadlines_show_early = False
        self.changes = Broadcast()
        self._versions = itertools.count(1000)
        self._change_count = 0
        self._counted = threading.Condition()

    def changed(self) -> None:
        """Tell everybody who waits for a change, in the event loop and in other threads."""
        self.changes.tell()
        with self._counted:
            self._change_count += 1
            self._counted.notify_all()

    @property
    def change_count(self) -> int:
        """How many changes there were. Any thread may ask."""
        return self._change_count

    def wait_for_change(self, seen: int, timeout: float) -> bool:
        """Wait until there were more than ``seen`` changes; return whether there were. For other threads."""
        with self._counted:
            return self._counted.wait_for(lambda: self._change_count > seen, timeout)

    async def change_or_moment(self) -> None:
        """Wait for a change, but not for long: of what a test sets by itself, such as a secret, nobody is told."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.changes.wait(), _MOMENT_SECONDS)

    def add(self, pod: Pod) -> None:
        """Add a new pod."""
        self.pods[pod.namespace, pod.name] = pod
        self.all_pods.append(pod)
        self.touch(pod)

    def remove(self, pod: Pod) -> None:
        """Take a pod out, so that the API no longer knows it."""
        if self.pods.get((pod.namespace, pod.name)) is pod:
            del self.pods[pod.namespace, pod.name]
        self.touch(pod)

    def touch(self, pod: Pod) -> None:
        """Say that a pod changed."""
        pod.metadata["resourceVersion"] = self.next_version()
        self.changed()

    def next_version(self) -> str:
        """Return a resource version newer than all others."""
        return str(next(self._versions))

    def free(self, resource: str) -> int:
        """Return how many of a resource no pod on the node holds."""
        holders = [pod for pod in self.all_pods if pod.start_time is not None and not pod.ended]
        return self.capacity.get(resource, 0) - sum(pod.resources().get(resource, 0) for pod in holders)

    def add_event(self, pod: Pod, reason: str, message: str, *, of: Container | None = None) -> None:
        """Add an event about a pod, or about a container of it; one that comes again is counted."""
        version = self.next_version()
        now = time_text(self.clock.now())
        about = {"kind": "Pod", "apiVersion": "v1", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
        if of is not None:
            kind = "initContainers" if of in pod.init_containers else "containers"
            about["fieldPath"] = f"spec.{kind}{{{of.name}}}"
        for event in self.events:
            if (event["involvedObject"], event["reason"], event["message"]) == (about, reason, message):
                event["metadata"]["resourceVersion"] = version
                event["count"] += 1
                event["lastTimestamp"] = now
                self.changed()
                return
        source = {"component": _SOURCES[reason]} if reason in _SOURCES else {"component": "kubelet", "host": NODE}
        self.events.append(
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {
                    "name": f"{pod.name}.{int(version):x}",
                    "namespace": pod.namespace,
                    "uid": str(uuid.uuid4()),
                    "resourceVersion": version,
                    "creationTimestamp": time_text(time.time_ns()),
                },
                "involvedObject": about,
                "reason": reason,
                "message": message,
                "type": "Warning" if reason in _WARNINGS else "Normal",
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": source,
            }
        )
        self.changed()


_MOMENT_SECONDS = 0.5
_WARNINGS = {"FailedScheduling", "FailedMount", "Failed", "InspectFailed", "Evicted", "DeadlineExceeded"}
_SOURCES = {
    "Scheduled": "default-scheduler",
    "FailedScheduling": "default-scheduler",
    "Preempted": "default-scheduler",
    "TaintManagerEviction": "taint-eviction-controller",
}
