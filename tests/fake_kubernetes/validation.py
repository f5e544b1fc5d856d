"""The checks that the API server makes of a pod's manifest, in words like its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .objects import ApiError, Json, not_in_the_fake
from .quantities import is_quantity

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(rf"{_DNS_LABEL.pattern}(\.{_DNS_LABEL.pattern})*")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")

_DNS_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_DNS_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_NAME_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_VARIABLE_WORDS = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not "
    "start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is "
    "'[-._a-zA-Z][-._a-zA-Z0-9]*')"
)


@dataclass(frozen=True)
class Problem:
    """A field that the API server does not accept."""

    field: str
    reason: str
    message: str


def check_pod(pod: Json) -> None:
    """Check a manifest that has its defaults.

    :raises ApiError: it is not valid, or asks for something that the fake has not.
    """
    _check_types(pod)
    refuse(pod["metadata"].get("name", ""), [*_metadata_problems(pod["metadata"]), *_spec_problems(pod["spec"])])
    _check_scope(pod["spec"])


def check_labels(name: str, metadata: Json) -> None:
    """Check the labels and annotations that a pod would have after a patch.

    :raises ApiError: they are not valid.
    """
    _check_strings(metadata)
    refuse(name, list(_label_problems(metadata)))


def refuse(name: str, problems: Sequence[Problem]) -> None:
    """Answer with 422 where there are problems.

    :raises ApiError: there are.
    """
    if not problems:
        return
    words = [f"{problem.field}: {problem.message}" for problem in problems]
    message = words[0] if len(words) == 1 else f"[{', '.join(words)}]"
    causes = [{"reason": each.reason, "message": each.message, "field": each.field} for each in problems]
    raise ApiError(422, f'Pod "{name}" is invalid: {message}', {"name": name, "kind": "Pod", "causes": causes})


def _required(field: str, why: str = "") -> Problem:
    return Problem(field, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))


def _invalid(field: str, value: Any, why: str) -> Problem:
    return Problem(field, "FieldValueInvalid", f"Invalid value: {json.dumps(value)}: {why}")


def _duplicate(field: str, value: Any) -> Problem:
    return Problem(field, "FieldValueDuplicate", f"Duplicate value: {json.dumps(value)}")


def _unsupported(field: str, value: Any, known: Sequence[str]) -> Problem:
    supported = ", ".join(json.dumps(each) for each in known)
    message = f"Unsupported value: {json.dumps(value)}: supported values: {supported}"
    return Problem(field, "FieldValueNotSupported", message)


def _metadata_problems(metadata: Json) -> Iterator[Problem]:
    name = metadata.get("name")
    if not name:
        yield _required("metadata.name", "name or generateName is required")
    elif len(name) > 253:
        yield _invalid("metadata.name", name, "must be no more than 253 characters")
    elif not _DNS_SUBDOMAIN.fullmatch(name):
        yield _invalid("metadata.name", name, _DNS_SUBDOMAIN_WORDS)
    yield from _label_problems(metadata)


def _label_problems(metadata: Json) -> Iterator[Problem]:
    for kind in ("labels", "annotations"):
        for key in metadata.get(kind) or {}:
            prefix, slash, name = key.rpartition("/")
            if slash and not (_DNS_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= 253):
                yield _invalid(f"metadata.{kind}", key, f"prefix part {_DNS_SUBDOMAIN_WORDS}")
            if len(name) > 63:
                yield _invalid(f"metadata.{kind}", key, "name part must be no more than 63 characters")
            if not _LABEL_NAME.fullmatch(name):
                yield _invalid(f"metadata.{kind}", key, _LABEL_NAME_WORDS)
    for value in (metadata.get("labels") or {}).values():
        if len(value) > 63:
            yield _invalid("metadata.labels", value, "must be no more than 63 characters")
        if value and not _LABEL_NAME.fullmatch(value):
            yield _invalid("metadata.labels", value, _LABEL_VALUE_WORDS)


def _spec_problems(spec: Json) -> Iterator[Problem]:
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or []):
        yield from _volume_problems(f"spec.volumes[{index}]", volume, volumes)
    containers = spec.get("containers") or []
    if not containers:
        yield _required("spec.containers")
    names: set[str] = set()
    for kind, each in (("containers", containers), ("initContainers", spec.get("initContainers") or [])):
        for index, container in enumerate(each):
            yield from _container_problems(f"spec.{kind}[{index}]", container, names, volumes)
    for name in ("terminationGracePeriodSeconds", "activeDeadlineSeconds"):
        seconds = spec.get(name)
        if seconds is not None and seconds < 0:
            yield _invalid(f"spec.{name}", seconds, "must be greater than or equal to 0")
    policies = ("Always", "Never", "OnFailure")
    if spec["restartPolicy"] not in policies:
        yield _unsupported("spec.restartPolicy", spec["restartPolicy"], policies)


def _volume_problems(field: str, volume: Json, seen: set[str]) -> Iterator[Problem]:
    name = volume.get("name", "")
    yield from _label_name_problems(f"{field}.name", name)
    if name in seen:
        yield _duplicate(f"{field}.name", name)
    seen.add(name)
    if len(volume) < 2:
        yield _required(field, "must specify a volume type")
    if len(volume) > 2:
        yield Problem(field, "FieldValueForbidden", "Forbidden: may not specify more than 1 volume type")


def _container_problems(field: str, container: Json, names: set[str], volumes: set[str]) -> Iterator[Problem]:
    name = container.get("name", "")
    yield from _label_name_problems(f"{field}.name", name)
    if name in names:
        yield _duplicate(f"{field}.name", name)
    names.add(name)
    image = container.get("image")
    if not image:
        yield _required(f"{field}.image")
    elif image != image.strip():
        yield _invalid(f"{field}.image", image, "must not have leading or trailing whitespace")
    for key, known in (
        ("imagePullPolicy", ("Always", "IfNotPresent", "Never")),
        ("terminationMessagePolicy", ("File", "FallbackToLogsOnError")),
    ):
        if container[key] not in known:
            yield _unsupported(f"{field}.{key}", container[key], known)
    for index, variable in enumerate(container.get("env") or []):
        yield from _variable_problems(f"{field}.env[{index}]", variable)
    yield from _mount_problems(field, container.get("volumeMounts") or [], volumes)
    yield from _resource_problems(f"{field}.resources", container.get("resources") or {})


def _label_name_problems(field: str, name: str) -> Iterator[Problem]:
    if not name:
        yield _required(field)
    elif len(name) > 63:
        yield _invalid(field, name, "must be no more than 63 characters")
    elif not _DNS_LABEL.fullmatch(name):
        yield _invalid(field, name, _DNS_LABEL_WORDS)


def _variable_problems(field: str, variable: Json) -> Iterator[Problem]:
    name = variable.get("name", "")
    if not name:
        yield _required(f"{field}.name")
    elif not _VARIABLE.fullmatch(name):
        yield _invalid(f"{field}.name", name, _VARIABLE_WORDS)
    if variable.get("valueFrom") and variable.get("value"):
        yield _invalid(f"{field}.valueFrom", "", "may not be specified when `value` is not empty")


def _mount_problems(field: str, mounts: Sequence[Json], volumes: set[str]) -> Iterator[Problem]:
    paths: set[str] = set()
    for index, mount in enumerate(mounts):
        place = f"{field}.volumeMounts[{index}]"
        name, path = mount.get("name"), mount.get("mountPath")
        if not name:
            yield _required(f"{place}.name")
        elif name not in volumes:
            yield Problem(f"{place}.name", "FieldValueNotFound", f"Not found: {json.dumps(name)}")
        if not path:
            yield _required(f"{place}.mountPath")
        elif ":" in path:
            yield _invalid(f"{place}.mountPath", path, "must not contain ':'")
        elif path in paths:
            yield _invalid(f"{place}.mountPath", path, "must be unique")
        paths.add(path or "")


def _resource_problems(field: str, resources: Json) -> Iterator[Problem]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name, amount in requests.items():
        if "/" in name and str(limits.get(name)) != str(amount):
            yield _invalid(f"{field}.requests", str(amount), f"must be equal to {name} limit")


def _check_scope(spec: Json) -> None:
    """Refuse what a cluster can do and the fake cannot."""
    if spec["restartPolicy"] != "Never":
        raise not_in_the_fake(f"restartPolicy {spec['restartPolicy']}: it restarts no container")
    for volume in spec.get("volumes") or []:
        kind = next(key for key in volume if key != "name")
        if kind not in ("emptyDir", "hostPath", "persistentVolumeClaim", "configMap", "secret"):
            raise not_in_the_fake(f"{kind} volumes")
    for container in spec["containers"]:
        _check_container_scope(container, None)
    for container in spec.get("initContainers") or []:
        _check_container_scope(container, "Always")


def _check_container_scope(container: Json, restart_policy: str | None) -> None:
    if container.get("restartPolicy") not in (None, restart_policy):
        raise not_in_the_fake(f"restartPolicy {container['restartPolicy']} of such a container")
    for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(key):
            raise not_in_the_fake(key)
    if any(key in mount for mount in container.get("volumeMounts") or [] for key in ("subPath", "subPathExpr")):
        raise not_in_the_fake("subPath mounts")
    if any("resourceFieldRef" in (variable.get("valueFrom") or {}) for variable in container.get("env") or []):
        raise not_in_the_fake("resourceFieldRef")


def _check_types(pod: Json) -> None:
    """Refuse values that are not of the field's type, as decoding the request does."""
    _check_strings(pod["metadata"])
    for kind in ("containers", "initContainers"):
        for container in pod["spec"].get(kind) or []:
            for key in ("command", "args"):
                for word in container.get(key) or []:
                    _check_string(word, f"Container.spec.{kind}.{key}")
            for variable in container.get("env") or []:
                _check_string(variable.get("value", ""), f"EnvVar.spec.{kind}.env.value")
            for amounts in (container.get("resources") or {}).values():
                _check_quantities(amounts)


def _check_strings(metadata: Json) -> None:
    for kind in ("labels", "annotations"):
        for value in (metadata.get(kind) or {}).values():
            _check_string(value, f"ObjectMeta.metadata.{kind}")


def _check_string(value: Any, field: str) -> None:
    if not isinstance(value, str):
        kinds = {bool: "bool", int: "number", float: "number", list: "array", dict: "object", type(None): "null"}
        problem = f"json: cannot unmarshal {kinds[type(value)]} into Go struct field {field} of type string"
        raise ApiError(400, f'Pod in version "v1" cannot be handled as a Pod: {problem}')


def _check_quantities(amounts: Mapping[str, Any]) -> None:
    for amount in amounts.values():
        if not is_quantity(str(amount)):
            rule = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
            problem = f"quantities must match the regular expression '{rule}'"
            raise ApiError(400, f'Pod in version "v1" cannot be handled as a Pod: {problem}')
