"""A pod as the fake knows it, and the JSON in which the API shows it."""

from __future__ import annotations

import asyncio
import copy
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .clock import Clock
from .logs import Log
from .objects import Json, time_text
from .runtimes import RunningContainer

NODE = "fake-node"


@dataclass
class Container:
    """A container of a pod, from waiting to terminated."""

    spec: Json
    log: Log
    state: Json
    running: RunningContainer | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    out_of_memory: bool = False
    """Whether it is being killed for its use of memory."""

    asked_to_stop: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it has started, or never will."""

    backs_off: bool = False
    """Whether its last try was a pull of its image that failed."""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.spec["name"])

    @property
    def sidecar(self) -> bool:
        """Whether it is an init container that runs beside the others, for as long as they do."""
        return self.spec.get("restartPolicy") == "Always"

    @property
    def exit_code(self) -> int | None:
        """Its exit code, once it has ended."""
        terminated = self.state.get("terminated")
        return None if terminated is None else int(terminated["exitCode"])

    def status(self, pod_uid: str) -> Json:
        """Return its entry among the pod's container statuses."""
        running = "running" in self.state
        status: Json = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": "",
            "ready": running,
            "started": running,
            "restartCount": 0,
            "lastState": {},
            "state": self.state,
        }
        if "waiting" not in self.state:
            status["imageID"] = f"fake://{self.spec['image']}"
            status["containerID"] = f"fake://{pod_uid}/{self.name}"
        return status


@dataclass(frozen=True)
class Verdict:
    """Why the kubelet itself ended a pod."""

    reason: str
    message: str
    early: bool = False
    """Whether the pod counts as failed before its containers have ended."""


class Pod:
    """A pod: its manifest and how it fares."""

    def __init__(self, manifest: Json, changed: Callable[[], None], clock: Clock) -> None:
        self.metadata: Json = copy.deepcopy(manifest["metadata"])
        self.spec: Json = copy.deepcopy(manifest["spec"])
        self.metadata["uid"] = self.uid = str(uuid.uuid4())
        self.metadata["creationTimestamp"] = time_text(time.time_ns())
        init_specs = self.spec.get("initContainers") or []
        first_reason = "PodInitializing" if init_specs else "ContainerCreating"
        self.init_containers = [_waiting(spec, "ContainerCreating", changed, clock) for spec in init_specs]
        self.containers = [_waiting(spec, first_reason, changed, clock) for spec in self.spec["containers"]]
        self.start_time: str | None = None
        """When it came to its node; None while no node has room for it."""

        self.unschedulable: str | None = None
        """Why no node has room for it, once that is known."""

        self.verdict: Verdict | None = None
        self.disruption: Json | None = None
        """The condition that says who disrupts it."""

        self.grace: int | None = None
        """How long its containers may take to end, in seconds, once they have been asked to."""

        self.ended = False

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.metadata["namespace"])

    @property
    def all_containers(self) -> list[Container]:
        """The init containers and then the others."""
        return [*self.init_containers, *self.containers]

    @property
    def sidecars(self) -> list[Container]:
        """The init containers that run beside the others."""
        return [container for container in self.init_containers if container.sidecar]

    @property
    def gated(self) -> bool:
        """Whether nobody may find it room yet."""
        return bool(self.spec.get("schedulingGates"))

    @property
    def deleting(self) -> bool:
        """Whether it was asked to go."""
        return "deletionTimestamp" in self.metadata

    @property
    def stopping(self) -> bool:
        """Whether its containers were asked to end, and no more of them will start."""
        return self.grace is not None

    @property
    def phase(self) -> str:
        """Its phase, which follows from its containers."""
        codes = [container.exit_code for container in self.containers]
        if self.verdict and (self.ended or self.verdict.early):
            return "Failed"
        if not any("running" in container.state for container in self.sidecars):
            if any(container.exit_code for container in self.init_containers if not container.sidecar):
                return "Failed"
            if None not in codes:
                return "Failed" if self.verdict or any(codes) else "Succeeded"
        return "Pending" if all("waiting" in container.state for container in self.containers) else "Running"

    def volumes(self, kind: str) -> list[Json]:
        """Return its volumes of a kind, such as ``configMap``."""
        return [volume for volume in self.spec.get("volumes") or [] if kind in volume]

    def resources(self) -> dict[str, int]:
        """Return how many it asks for of each resource that is counted, such as ``nvidia.com/gpu``."""
        wanted: dict[str, int] = {}
        for container in self.spec["containers"]:
            for name, quantity in ((container.get("resources") or {}).get("limits") or {}).items():
                if "/" in name:
                    wanted[name] = wanted.get(name, 0) + int(quantity)
        return wanted

    def as_json(self) -> Json:
        """Return it as the API shows it."""
        status: Json = {"phase": self.phase, "conditions": self._conditions(), "qosClass": "BestEffort"}
        if self.verdict and status["phase"] == "Failed":
            status |= {"reason": self.verdict.reason, "message": self.verdict.message}
        spec = self.spec
        if self.start_time is not None:
            spec = {**spec, "nodeName": NODE}
            status |= {"startTime": self.start_time, "hostIP": "127.0.0.1", "podIP": "127.0.0.1"}
            status["containerStatuses"] = [container.status(self.uid) for container in self.containers]
            if self.init_containers:
                status["initContainerStatuses"] = [container.status(self.uid) for container in self.init_containers]
        document = {"kind": "Pod", "apiVersion": "v1", "metadata": self.metadata, "spec": spec, "status": status}
        return copy.deepcopy(document)

    def _conditions(self) -> list[Json]:
        disruption = [self.disruption] if self.disruption else []
        if self.start_time is None:
            if self.gated:
                words = "Scheduling is blocked due to non-empty scheduling gates"
                problem = {"reason": "SchedulingGated", "message": words}
            elif self.unschedulable is not None:
                problem = {"reason": "Unschedulable", "message": self.unschedulable}
            else:
                return disruption
            return [{"type": "PodScheduled", "status": "False", **problem}, *disruption]
        initialised = all(
            container.begun.is_set() if container.sidecar else container.exit_code == 0
            for container in self.init_containers
        )
        ready = all("running" in container.state for container in self.containers)
        facts = {"PodScheduled": True, "Initialized": initialised, "ContainersReady": ready, "Ready": ready}
        return [*({"type": name, "status": str(true)} for name, true in facts.items()), *disruption]


def _waiting(spec: dict[str, Any], reason: str, changed: Callable[[], None], clock: Clock) -> Container:
    return Container(spec, Log(changed, clock), {"waiting": {"reason": reason}})
