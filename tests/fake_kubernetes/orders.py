"""What a container's manifest comes to when it is to be started: folders, mounts, words and limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .environment import expanded
from .pods import Container, Pod
from .quantities import quantity
from .runtimes import ContainerOrder, Mount
from .volumes import mounts


def container_order(pod: Pod, container: Container, environment: Mapping[str, str], folder: Path) -> ContainerOrder:
    """Make the folders that a container needs below its pod's, and return the order to start it."""
    spec = container.spec
    place = folder / "containers" / container.name
    place.mkdir(parents=True, exist_ok=True)
    termination_log = place / "termination-log"
    termination_log.touch()
    # The container may run as any user.
    termination_log.chmod(0o666)
    limits = (spec.get("resources") or {}).get("limits") or {}
    return ContainerOrder(
        id=f"{container.name}-{pod.uid}",
        folder=folder,
        image=spec["image"],
        command=[expanded(word, environment) for word in spec.get("command") or []],
        arguments=[expanded(word, environment) for word in spec.get("args") or []],
        environment=environment,
        working_directory=spec.get("workingDir"),
        mounts=mounts(pod, spec, folder),
        termination_log=Mount(termination_log, spec["terminationMessagePath"]),
        security={**(pod.spec.get("securityContext") or {}), **(spec.get("securityContext") or {})},
        memory_limit=int(quantity(limits["memory"])) if "memory" in limits else None,
    )
