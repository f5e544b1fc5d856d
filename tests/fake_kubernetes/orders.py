"""What a container's manifest comes to when it is to be started: folders, mounts, words and limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .environment import expanded
from .objects import Json
from .pods import Container, Pod
from .quantities import quantity
from .runtimes import ContainerOrder, Mount


def container_order(pod: Pod, container: Container, environment: Mapping[str, str], folder: Path) -> ContainerOrder:
    """Make the folders that a container needs below its pod's, and return the order to start it."""
    spec = container.spec
    place = folder / "containers" / container.name
    place.mkdir(parents=True)
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
        mounts=_mounts(pod.spec, spec, folder / "volumes"),
        termination_log=Mount(termination_log, spec["terminationMessagePath"]),
        security={**(pod.spec.get("securityContext") or {}), **(spec.get("securityContext") or {})},
        memory_limit=int(quantity(limits["memory"])) if "memory" in limits else None,
    )


def _mounts(pod_spec: Json, spec: Json, folder: Path) -> list[Mount]:
    volumes = {volume["name"]: volume for volume in pod_spec.get("volumes") or []}
    return [
        _mount(volumes[mount["name"]], mount["mountPath"], bool(mount.get("readOnly")), folder)
        for mount in spec.get("volumeMounts") or []
    ]


def _mount(volume: Json, path: str, read_only: bool, folder: Path) -> Mount:
    if "hostPath" in volume:
        return Mount(Path(volume["hostPath"]["path"]), path, read_only)
    if "persistentVolumeClaim" in volume:  # below no pod's folder, so that the next pod finds what this one leaves
        claims = folder.parent.parent.parent / "claims"
        place = claims / volume["persistentVolumeClaim"]["claimName"]
        place.mkdir(parents=True, exist_ok=True)
        return Mount(place, path, read_only)
    place = folder / volume["name"]
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o777)
    empty_dir = volume["emptyDir"] or {}
    size = empty_dir.get("sizeLimit")
    return Mount(
        place,
        path,
        read_only,
        in_memory=empty_dir.get("medium") == "Memory",
        size=None if size is None else int(quantity(size)),
    )
