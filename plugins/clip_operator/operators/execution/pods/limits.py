"""An administrator's limits on a pod, held against the finished pod, whichever of its arguments made it so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubernetes.client import ApiClient, Configuration
from kubernetes.client import models as k8s

from clip_operator.errors import RequestError
from clip_operator.operators.limits import SECTION, Limits, outside

# What takes a pod out of its box, whatever it is made of: a switch by its name, or what a test finds in its value.
_SWITCHES = frozenset({"hostNetwork", "hostPID", "hostIPC", "hostProcess", "privileged", "allowPrivilegeEscalation"})
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_NAMES_A_SECRET = re.compile("secret|configmap", re.IGNORECASE)


def check_pod(pod: k8s.V1Pod, limits: Limits) -> None:
    """Raise :class:`RequestError` if the pod is outside the limits, of which any keeps it in its box."""
    if not limits.hold_pods:
        return
    spec = ApiClient(configuration=Configuration()).sanitize_for_serialization(pod.spec)
    limits.check_named("allowed_namespaces", "pod's namespace", pod.metadata.namespace or "default")
    accounts = {spec.get("serviceAccountName"), spec.get("serviceAccount")} - {None, ""}
    for account in sorted(accounts) or ["default"]:
        limits.check_named("allowed_service_accounts", "pod's service account", account)
    _check_images(spec, limits.allowed_pod_images)
    for key, value in _entries(spec):
        if _leaves_its_box(key, value):
            raise RequestError(
                f"pod sets {key!r} to what no pod may have while the administrator of this Airflow limits pods, by "
                f"[{SECTION}] in its configuration; leave it out"
            )
        if _NAMES_A_SECRET.search(key):
            for name in _names(value):
                limits.check_named("allowed_secrets", f"pod's {key}", name)


def _check_images(spec: Mapping[str, Any], allowed: Sequence[str] | None) -> None:
    for image in () if allowed is None else _images(spec):
        if not any(_is_image(image, entry) for entry in allowed or ()):
            raise outside("allowed_pod_images", "pod's image", image)


def _images(spec: Mapping[str, Any]) -> Iterator[str]:
    for place in _CONTAINERS:
        for container in spec.get(place) or ():
            yield container.get("image") or ""
    for volume in spec.get("volumes") or ():
        if "image" in volume:
            yield volume["image"].get("reference") or ""


def _is_image(image: str, entry: str) -> bool:
    """Tell whether an entry means an image: that tag or digest; without one, any; below a folder, all."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    name = f"{folder}{slash}{last.partition(':')[0]}"
    return image == entry or name == entry or (entry.endswith("/") and name.startswith(entry) and ".." not in name)


def _entries(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key in a manifest and what it holds, at any depth."""
    if isinstance(part, Mapping):
        yield from part.items()
        part = part.values()
    if not isinstance(part, str) and hasattr(part, "__iter__"):
        for inner in part:
            yield from _entries(inner)


def _leaves_its_box(key: str, value: Any) -> bool:
    return (
        (key in _SWITCHES and value is True)
        or (key in ("hostPath", "hostPort") and bool(value))
        or (key == "capabilities" and isinstance(value, Mapping) and bool(value.get("add")))
        or (key in ("procMount", "type") and value in ("Unmasked", "Unconfined"))
    )


def _names(value: Any) -> Iterator[str]:
    """Yield the names that a field has which is called after Secrets: ``secretName: x``, ``secretRef: {name: x}``."""
    if isinstance(value, str):
        yield value
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, Mapping):
            yield from (part[key] for key in ("name", "secretName") if part.get(key))
