"""The operator's ``pod`` argument, checked: what KubernetesPodOperator is given, and nothing it does not know."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.sdk import BaseOperator
from kubernetes.client import ApiClient, Configuration

from clip_operator.errors import RequestError
from clip_operator.operators.execution.log_lines import parse_log_line
from clip_operator.operators.limits import NO_LIMITS, Limits
from clip_operator.operators.parameters import is_unset
from clip_operator.operators.where import WHOLE_PODS, gpus_of, outage_of, read_as
from clip_operator.redaction import plain
from clip_operator.request import structure_in

# What the operator decides itself, and what to do instead.
_OWNED = {
    "cmds": "the pod runs `python -m clip_operator`",
    "arguments": "they carry the request",
    "do_xcom_push": "the result comes back through the manifest, without a sidecar",
    "skip_on_exit_code": "the manifest decides how the task ends",
    "deferrable": "set the operator's own deferrable=",
}

# Where an argument that is given as JSON stands in a pod's manifest, and so what its fields are.
_IN_SPEC = {
    "affinity": "affinity",
    "dns_config": "dnsConfig",
    "host_aliases": "hostAliases",
    "image_pull_secrets": "imagePullSecrets",
    "init_containers": "initContainers",
    "security_context": "securityContext",
    "tolerations": "tolerations",
    "volumes": "volumes",
}
_IN_CONTAINER = {
    "container_resources": "resources",
    "container_security_context": "securityContext",
    "env_from": "envFrom",
    "env_vars": "env",
    "ports": "ports",
    "volume_mounts": "volumeMounts",
}

# Arguments that are structures, and may be given as a template that renders to JSON. image_pull_secrets has a form of
# its own for strings.
_STRUCTURES = {
    "labels",
    "annotations",
    "node_selector",
    "secrets",
    "full_pod_spec",
    "pod_template_dict",
    "configmaps",
} | (_IN_SPEC.keys() | _IN_CONTAINER.keys()) - {"image_pull_secrets"}

# A node with a GPU often has to be started first, and an image with CUDA in it is several GB.
_SECONDS_TO_SCHEDULE = 900
_SECONDS_TO_START = 900
_SECONDS_BETWEEN_LOGS = 30
_SECONDS_BETWEEN_LOOKS = 2


@dataclass(frozen=True)
class PodSettings:
    """What the user says of the pod.

    :param arguments: arguments of KubernetesPodOperator, of the types that it takes.
    :param gpus: 1 for an NVIDIA GPU, 0 for none of the operator's asking.
    :param deferrable: wait for the pod in the triggerer, not on a worker.
    :param limits: what the pod may be made of.
    :param max_api_outage_seconds: for which Kubernetes' API may not tell how the pod fares.
    """

    arguments: Mapping[str, Any]
    gpus: int
    deferrable: bool
    limits: Limits
    max_api_outage_seconds: int


def pod_settings(
    pod: object,
    gpus: object,
    deferrable: object,
    limits: Limits = NO_LIMITS,
    max_api_outage_seconds: object = 3600,
) -> PodSettings:
    """Return the checked settings, given the operator's parameters as templating left them; None is not set.

    :raises RequestError: names the argument that is unknown, not the user's to set, outside the limits, or malformed.
    """
    wanted, outage = gpus_of(gpus), outage_of(max_api_outage_seconds)
    wait_elsewhere = read_as("deferrable", bool, deferrable)
    defaults = {
        "termination_message_policy": "FallbackToLogsOnError",
        "log_events_on_failure": True,
        "log_pod_spec_on_failure": False,  # it would stand in the log twice, in Python's words
        "schedule_timeout_seconds": _SECONDS_TO_SCHEDULE,
        "startup_timeout_seconds": _SECONDS_TO_START,
        "logging_interval": _SECONDS_BETWEEN_LOGS if wait_elsewhere else None,
        "base_container_status_polling_interval": _SECONDS_BETWEEN_LOOKS,
        "container_name_log_prefix_enabled": False,
        "log_formatter": _without_level,
    }
    return PodSettings({**defaults, **_arguments(pod, limits)}, wanted, wait_elsewhere, limits, outage)


def _without_level(_container: str, line: str) -> str:
    """Return the line without its level, which the task's log shows in its own way, plain whatever the image is."""
    return plain(parse_log_line(line.rstrip())[1])


def _arguments(pod: object, limits: Limits) -> dict[str, Any]:
    if isinstance(pod, str):
        pod = _from_json("pod", pod)
    if pod is None:
        return {}
    if not isinstance(pod, Mapping):
        raise RequestError(f"pod must be a dictionary of KubernetesPodOperator's arguments, not {type(pod).__name__}")
    known = inspect.signature(KubernetesPodOperator.__init__).parameters
    for name in pod:
        _check_name(name, known)
    given = {name: value for name, value in pod.items() if not is_unset(value)}
    limits.check_pod_arguments(given)
    return {name: _value(name, value, known[name].annotation) for name, value in given.items()}


def _check_name(name: str, known: Mapping[str, inspect.Parameter]) -> None:
    if name in _OWNED:
        raise RequestError(f"pod must not set {name!r}, which is the operator's own matter: {_OWNED[name]}")
    if name in known:
        return
    if name in inspect.signature(BaseOperator.__init__).parameters:
        raise RequestError(f"pod must not set {name!r}: that is an argument of the operator itself")
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise RequestError(f"pod has an argument that KubernetesPodOperator does not know: {name!r}{hint}")


def _value(name: str, value: Any, annotation: str) -> Any:
    """Return the value with the type that KubernetesPodOperator takes, where a template or JSON gave another one."""
    if isinstance(value, str):
        plain = {"bool": bool, "int": int, "float": float}.get(str(annotation).partition(" |")[0])
        if plain is not None:
            return read_as(f"pod[{name!r}]", plain, value)
        if name in _STRUCTURES:
            value = _from_json(f"pod[{name!r}]", value)
    if name == "secrets":
        return _secrets(value)
    if name in WHOLE_PODS:
        return _whole_pod(name, value)
    if name == "env_vars" and isinstance(value, Mapping):
        return {key: _environment_text(key, text) for key, text in value.items()}
    return _parts(name, value) if name in _IN_SPEC or name in _IN_CONTAINER else value


def _from_json(name: str, text: str) -> Any:
    try:
        return structure_in(text)
    except ValueError as error:
        raise RequestError(f"{name} is a string that is not JSON: {error}") from None


def _yaml(name: str, path: object) -> Any:
    try:
        return yaml.safe_load(Path(str(path)).read_text())
    except FileNotFoundError:
        raise RequestError(f"pod[{name!r}]: there is no file {path} on this worker") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"pod[{name!r}]: {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:  # whose text has lines of the file, which may be another one than was meant
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise RequestError(f"pod[{name!r}]: {path} cannot be read: it is not YAML{place}") from None


def _secrets(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise RequestError(f"pod['secrets'] must be a list, not {type(value).__name__}")
    try:
        return [Secret(**item) if isinstance(item, Mapping) else item for item in value]
    except Exception as error:  # TypeError for its signature, Airflow's own for its values
        raise RequestError(f"pod['secrets']: {error}") from None


def _whole_pod(name: str, value: Any) -> Any:
    """Return what is given as a whole pod, checked; its file is read when the pod is made."""
    if name == "full_pod_spec":
        return _model(name, value) if isinstance(value, Mapping) else value
    _model(name, _yaml(name, value) if name == "pod_template_file" else value)
    return value


def _environment_text(name: str, value: object) -> str:
    if isinstance(value, (Mapping, list)) or value is None:
        raise RequestError(f"pod['env_vars']: {name} must be a string, not {type(value).__name__}")
    return str(value)


def _parts(name: str, value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_part(name, [item])[0] if isinstance(item, Mapping) else item for item in value]
    return _part(name, value) if isinstance(value, Mapping) else value


def _part(name: str, value: Any) -> Any:
    """Return the Kubernetes object of one argument that is given as JSON."""
    if place := _IN_SPEC.get(name):
        model = _model(name, {"spec": {"containers": [], place: value}}).spec
    else:
        place = _IN_CONTAINER[name]
        model = _model(name, {"spec": {"containers": [{"name": "base", place: value}]}}).spec.containers[0]
    return getattr(model, next(attribute for attribute, key in model.attribute_map.items() if key == place))


def _model(name: str, manifest: object) -> Any:
    """Return the ``V1Pod`` of a manifest, every field of which Kubernetes knows."""
    if not isinstance(manifest, Mapping):
        raise RequestError(f"pod[{name!r}] holds no pod but {type(manifest).__name__}")
    try:
        pod = PodGenerator.deserialize_model_dict(dict(manifest))
        read = ApiClient(configuration=Configuration()).sanitize_for_serialization(pod)
    except (ValueError, TypeError, AttributeError) as error:  # whatever the generated client stumbles over
        problem = str(error)
        if name == "pod_template_file" and not problem.endswith("must not be `None`"):
            problem = type(error).__name__  # of a file, no value is told
        raise RequestError(f"pod[{name!r}] is malformed: {problem}") from None
    if lost := _lost_key(manifest, read):
        raise RequestError(
            f"pod[{name!r}] has a field {lost!r} that Kubernetes does not know there; "
            "JSON takes the names that a pod's YAML has, such as mountPath"
        )
    return pod


def _lost_key(given: Any, read: Any) -> str | None:
    """Return a key that is in ``given`` and has been dropped without a word."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            if value is None:
                continue
            if not isinstance(read, Mapping) or key not in read:
                return str(key)
            if lost := _lost_key(value, read[key]):
                return lost
    elif isinstance(given, Sequence) and not isinstance(given, str) and isinstance(read, Sequence):
        for item, item_read in zip(given, read, strict=False):
            if lost := _lost_key(item, item_read):
                return lost
    return None
