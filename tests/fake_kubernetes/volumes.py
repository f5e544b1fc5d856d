"""The volumes of a pod, as folders of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .environment import Contents
from .objects import Json
from .pods import Pod
from .quantities import quantity
from .runtimes import Mount


class MountError(Exception):
    """A volume cannot be set up, for now."""


def set_up_volumes(pod: Pod, folder: Path, secrets: Contents, config_maps: Contents) -> None:
    """Write the files of the secrets and config maps that the containers mount; later changes do not reach them.

    :raises MountError: one of them does not exist, or has not the key; in the words of the kubelet's event.
    """
    mounted = {mount["name"] for each in pod.all_containers for mount in each.spec.get("volumeMounts") or []}
    for field, name_key, kind, key_kind, contents in (
        ("secret", "secretName", "secret", "secret", secrets),
        ("configMap", "name", "configmap", "config", config_maps),
    ):
        for volume in pod.volumes(field):
            if volume["name"] not in mounted:
                continue
            source = volume[field]
            found = contents.get(source[name_key])
            why = f'MountVolume.SetUp failed for volume "{volume["name"]}" : '
            if found is None and not source.get("optional"):
                raise MountError(f'{why}{kind} "{source[name_key]}" not found')
            chosen = _chosen(source, found or {}, f"{why}references non-existent {key_kind} key: ")
            _write(chosen, folder / "volumes" / volume["name"])


def mounts(pod: Pod, container: Json, folder: Path) -> list[Mount]:
    """Return the mounts of a container; the folder is the pod's."""
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or []}
    return [
        _mount(volumes[mount["name"]], mount["mountPath"], bool(mount.get("readOnly")), folder / "volumes")
        for mount in container.get("volumeMounts") or []
    ]


def _chosen(source: Json, found: Mapping[str, str], missing: str) -> dict[str, str]:
    """Return the files of a volume, by their paths in it."""
    if not source.get("items"):
        return dict(found)
    for item in source["items"]:
        if item["key"] not in found and not source.get("optional"):
            raise MountError(missing + item["key"])
    return {item["path"]: found[item["key"]] for item in source["items"] if item["key"] in found}


def _write(files: Mapping[str, str], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text)


def _mount(volume: Json, path: str, read_only: bool, folder: Path) -> Mount:
    if "hostPath" in volume:
        return Mount(Path(volume["hostPath"]["path"]), path, read_only)
    if "persistentVolumeClaim" in volume:  # below no pod's folder, so that the next pod finds what this one leaves
        claims = folder.parent.parent.parent / "claims"
        place = claims / volume["persistentVolumeClaim"]["claimName"]
        place.mkdir(parents=True, exist_ok=True)
        return Mount(place, path, read_only)
    place = folder / volume["name"]
    if "emptyDir" not in volume:
        return Mount(place, path, read_only=True)
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
