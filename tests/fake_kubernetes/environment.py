"""A container's environment, put together from its manifest as a kubelet does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .objects import Json
from .runtimes import ContainerRefusedError

Contents = Mapping[str, Mapping[str, str]]
"""Secrets or config maps: keys and values by name."""

_REFERENCE = re.compile(r"\$\$|\$\((?P<name>[^)]*)\)")
_LABEL_FIELD = re.compile(r"metadata\.(?P<kind>labels|annotations)\['(?P<key>[^']*)'\]")


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by the value; an unknown name stays as it is, and ``$$`` becomes ``$``."""
    return _REFERENCE.sub(
        lambda match: "$" if match[0] == "$$" else values.get(match["name"], match[0]),
        text,
    )


def container_environment(container: Json, pod: Json, secrets: Contents, config_maps: Contents) -> dict[str, str]:
    """Return the variables of a container; later ones may refer to earlier ones.

    :raises ContainerRefusedError: something that they refer to does not exist.
    """
    namespace = pod["metadata"]["namespace"]
    values: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for kind, contents, reference in (
            ("secret", secrets, source.get("secretRef")),
            ("configmap", config_maps, source.get("configMapRef")),
        ):
            if reference:
                found = _contents(kind, contents, reference, namespace)
                values |= {source.get("prefix", "") + key: value for key, value in found.items()}
    for variable in container.get("env") or []:
        if source := variable.get("valueFrom"):
            value = _referred_value(source, pod, secrets, config_maps)
            if value is not None:
                values[variable["name"]] = value
        else:
            values[variable["name"]] = expanded(variable.get("value") or "", values)
    return values


def _referred_value(source: Json, pod: Json, secrets: Contents, config_maps: Contents) -> str | None:
    if reference := source.get("fieldRef"):
        return _field(pod, reference["fieldPath"])
    kind, shown_kind, contents, reference = (
        ("secret", "Secret", secrets, source["secretKeyRef"])
        if source.get("secretKeyRef")
        else ("configmap", "ConfigMap", config_maps, source["configMapKeyRef"])
    )
    namespace = pod["metadata"]["namespace"]
    found = _contents(kind, contents, reference, namespace)
    key = reference["key"]
    if key not in found and not reference.get("optional"):
        place = f"{namespace}/{reference['name']}"
        raise ContainerRefusedError("CreateContainerConfigError", f"couldn't find key {key} in {shown_kind} {place}")
    return found.get(key)


def _contents(kind: str, contents: Contents, reference: Json, namespace: str) -> Mapping[str, str]:
    name = reference["name"]
    if name not in contents and not reference.get("optional"):
        raise ContainerRefusedError("CreateContainerConfigError", f'{kind} "{name}" not found')
    return contents.get(name, {})


def _field(pod: Json, path: str) -> str:
    if match := _LABEL_FIELD.fullmatch(path):
        return str((pod["metadata"].get(match["kind"]) or {}).get(match["key"], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
