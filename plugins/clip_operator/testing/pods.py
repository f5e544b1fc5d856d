"""The pod of a task, built without a cluster and held against what Kubernetes says of its fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import ApiClient, Configuration, models
from kubernetes.utils import parse_quantity

from clip_operator.errors import RequestError
from clip_operator.operators.asked import is_known
from clip_operator.operators.execution.pods.pod import scoring_pod
from clip_operator.operators.execution.pods.settings import pod_settings
from clip_operator.operators.where import gpus_of
from clip_operator.request import EvaluationRequest, structure_in

_REQUEST = EvaluationRequest(input="s3://bucket/in.jsonl", output="s3://bucket/out.jsonl")

_PLAIN = {"str": str, "int": int, "bool": bool, "float": int | float}

_MANY = re.compile(r"(?:list\[|dict[(\[]str, )(.+)[)\]]")

# Of these, Kubernetes takes a number for the text that it would be.
_AMOUNTS = {("V1ResourceRequirements", "limits"), ("V1ResourceRequirements", "requests")}


def check_pod(pod: object, gpus: object, marks: tuple[str, ...]) -> None:
    """Check what is said of a task's pod, as far as it is known.

    :param pod: the parameter; templates in it, which begin with one of ``marks``, are taken for what they may be.
    :raises RequestError: it makes no pod that Kubernetes takes.
    """
    arguments = pod
    with suppress(ValueError):
        arguments = structure_in(pod) if isinstance(pod, str) else pod
    if not isinstance(arguments, Mapping):
        pod_settings(arguments, 0, False)  # which says what is wrong with it
        return
    known = {name: value for name, value in arguments.items() if _is_told(name, value, marks)}
    if (file := known.get("pod_template_file")) is not None and not Path(str(file)).is_file():
        return  # it is the worker's
    if len(known) < len(arguments) and "image" not in known:
        known["image"] = "image"
    known.setdefault("namespace", "default")
    settings = pod_settings(known, gpus_of(gpus), False)
    built = scoring_pod(settings, _REQUEST, "task").build_pod_request_obj(dry_run=True)
    manifest = ApiClient(configuration=Configuration()).sanitize_for_serialization(built)
    for problem in _problems("V1Pod", manifest, "", marks):
        raise RequestError(f"pod: {problem}")
    _check_mounts(manifest["spec"])


def _is_told(name: str, value: Any, marks: tuple[str, ...]) -> bool:
    """Tell whether an argument is more than a template: one that is a text may hold one, as an image does."""
    if not isinstance(value, str) or is_known(value, marks):
        return True
    known = KubernetesPodOperator.__init__.__annotations__.get(name, "")
    return name not in ("pod_template_file", "config_file") and str(known).replace(" ", "") in ("str", "str|None")


def _problems(kind: str, value: Any, place: str, marks: tuple[str, ...]) -> Iterator[str]:
    """Yield what is not of the type that Kubernetes' own schema has for it."""
    if value is None or (isinstance(value, str) and not is_known(value, marks)):
        return
    if match := _MANY.fullmatch(kind):
        is_list = kind.startswith("list")
        if not isinstance(value, list if is_list else Mapping):
            yield f"{place} must be a {'list' if is_list else 'mapping'}, not {type(value).__name__}"
            return
        for key, item in enumerate(value) if isinstance(value, list) else value.items():
            yield from _problems(match[1], item, f"{place}[{key}]", marks)
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{place} must be of the type {kind}, not {value!r:.40}"
    elif (model := getattr(models, kind, None)) is not None:
        yield from _problems_of(model, value, place, marks)


def _problems_of(model: Any, value: Any, place: str, marks: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{place} must be a mapping, not {type(value).__name__}"
        return
    for attribute, key in model.attribute_map.items():
        where = f"{place}.{key}" if place else key
        if (model.__name__, attribute) in _AMOUNTS:
            yield from _amounts(value.get(key), where, marks)
        else:
            yield from _problems(model.openapi_types[attribute], value.get(key), where, marks)


def _amounts(amounts: Any, place: str, marks: tuple[str, ...]) -> Iterator[str]:
    for name, amount in (amounts or {}).items():
        try:
            if is_known(amount, marks):
                parse_quantity(amount)
        except ValueError:
            yield f"{place}.{name} must be an amount such as 4, 500m or 8Gi, not {amount!r:.40}"


def _check_mounts(spec: Mapping[str, Any]) -> None:
    """Check that what is mounted is there."""
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        for mount in container.get("volumeMounts") or []:
            if mount.get("name") not in volumes:
                raise RequestError(f"pod: volume_mounts name {mount.get('name')!r}, and there is no such volume")
