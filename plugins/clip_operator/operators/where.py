"""Where a task scores, and that nothing is said of a place where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from clip_operator.errors import RequestError
from clip_operator.operators.parameters import choice_of, is_unset

EXECUTION_MODES = ("local", "kubernetes")

WHOLE_PODS = ("full_pod_spec", "pod_template_dict", "pod_template_file")
"""Arguments of a pod that say all of it, its image too."""

NO_IMAGE = "pod needs an image: pod={'image': …}, or one in its template"


def check_where(parameters: Mapping[str, Any]) -> None:
    """Check what parameters say of where the task scores; those that are not among them are not known yet.

    :raises RequestError: one is wrong, or is for a pod where the task has none.
    """
    mode = choice_of(parameters, "execution_mode", EXECUTION_MODES) if "execution_mode" in parameters else None
    gpus = gpus_of(parameters.get("gpus"))
    if mode == "local":
        given = ["gpus"] if gpus else []
        given += ["pod"] if _structure(parameters.get("pod")) else []
        if given:
            raise RequestError(
                f"{' and '.join(given)}: for a pod, which the task has not, because execution_mode is 'local'. Set "
                "execution_mode='kubernetes', or leave it out; on the worker, device says where the model runs"
            )
    if mode == "kubernetes":
        if parameters.get("deferrable") is not None:
            read_as("deferrable", bool, parameters["deferrable"])
        outage_of(parameters.get("max_api_outage_seconds", 0))
        if "pod" in parameters:
            _check_image(parameters["pod"])


def gpus_of(value: object) -> int:
    """Return how many GPUs are asked for, given what templating left.

    :raises RequestError: neither none nor one.
    """
    gpus: int = read_as("gpus", int, 0 if is_unset(value) else value)
    if gpus not in (0, 1):
        raise RequestError(f"gpus must be 0 or 1, not {gpus}: a pod scores on one GPU. Map the task to use more")
    return gpus


def outage_of(value: object) -> int:
    """Return for how many seconds Kubernetes' API may be silent.

    :raises RequestError: it is no such number.
    """
    outage: int = read_as("max_api_outage_seconds", int, value)
    if outage < 0:
        raise RequestError(f"max_api_outage_seconds must not be below 0, as {outage} is")
    return outage


def read_as(name: str, kind: type[Any], value: object) -> Any:
    """Return a value of a type, which templating may have made a text.

    :raises RequestError: it is none.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise RequestError(f"{name}: {error.errors(include_url=False)[0]['msg']}, not {value!r}") from None


def _structure(pod: object) -> object:
    """Return what is said of a pod, of a text that holds it what that holds."""
    from clip_operator.request import structure_in

    if isinstance(pod, str):
        with suppress(ValueError):  # who makes the pod says what is wrong with it
            return structure_in(pod)
    return pod


def _check_image(pod: object) -> None:
    """Check that a pod has an image, as far as its arguments tell."""
    arguments = _structure({} if pod is None else pod)
    if not isinstance(arguments, Mapping) or any(not is_unset(arguments.get(name)) for name in ("image", *WHOLE_PODS)):
        return
    if not _policies_choose():
        raise RequestError(NO_IMAGE)


def _policies_choose() -> bool:
    """Tell whether this Airflow has policies of its own, which may give a task or a pod what the DAG does not."""
    from airflow import settings

    made_when_asked: Any = getattr(settings, "get_policy_plugin_manager", None)  # but in Airflow 3.1
    manager = getattr(settings, "POLICY_PLUGIN_MANAGER", None) if made_when_asked is None else made_when_asked()
    if manager is None:  # nobody knows yet
        return True
    hooks = manager.hook
    return any(len(hook.get_hookimpls()) > 1 for hook in (hooks.pod_mutation_hook, hooks.task_policy))
