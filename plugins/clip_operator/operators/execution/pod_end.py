"""Why a pod did not do its work, in words for the person whose task it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow.providers.cncf.kubernetes.utils.pod_manager import PodNotFoundException
from kubernetes.client import ApiException

from clip_operator.errors import ClipOperatorError, JobError, RequestError
from clip_operator.operators.execution.log_lines import last_error
from clip_operator.request import EvaluationRequest
from clip_operator.steps import manifest_uri
from clip_operator.storage import display

if TYPE_CHECKING:
    from kubernetes.client import models as k8s

_WRONG_REQUEST = 2  # the command line's exit code
_KILLED = 128 + 9
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
_REFUSED = (400, 422)  # HTTP: another try would be refused again


def explain(
    pod: k8s.V1Pod | None, container: str, trouble: Exception | None, request: EvaluationRequest
) -> ClipOperatorError:
    """Return the error that says why there is no output.

    :param pod: the pod when it was last seen; None if it never was, or was gone.
    :param container: the name of the container that scores.
    :param trouble: what went wrong for the one who watched it.
    :return: a :class:`RequestError` where another try would end the same way.
    """
    if pod is None:
        return _never_seen(trouble)
    # From the outside in: a pod that is evicted also ends its container, which then speaks of a signal.
    return (
        _disruption(pod)
        or _end_of_container(pod, container, request)
        or _not_started(pod)
        or JobError(f"{_name(pod)} was {_phase(pod)} when watching it ended: {describe_trouble(trouble)}")
    )


def describe_trouble(trouble: Exception | None) -> str:
    """Return what an exception says, without the HTTP headers that the Kubernetes client puts into its own text."""
    if isinstance(trouble, ApiException):
        try:
            return str(json.loads(trouble.body)["message"])
        except (ValueError, TypeError, KeyError):
            return f"{trouble.status} {trouble.reason}"
    return str(trouble) if trouble is not None else "for no reason that is known"


def _never_seen(trouble: Exception | None) -> ClipOperatorError:
    words = describe_trouble(trouble)
    # Not every 404 is the pod's: its namespace may be the one that is not there.
    about_pod = isinstance(trouble, ApiException) and trouble.status == 404 and words.startswith("pods ")
    if trouble is None or isinstance(trouble, PodNotFoundException) or about_pod:
        return JobError(
            "the pod is gone and has left no manifest: it was deleted, or its node was lost. Another try starts anew"
        )
    if isinstance(trouble, ApiException):
        text = f"Kubernetes' API refused: {words}"
        return RequestError(text) if trouble.status in _REFUSED else JobError(text)
    return JobError(f"the pod could not be run: {words}")


def _disruption(pod: k8s.V1Pod) -> JobError | None:
    if pod.status.reason:
        what = {"Evicted": "evicted", "DeadlineExceeded": "ended by its deadline"}.get(pod.status.reason)
        return JobError(f"{_name(pod)} was {what or 'ended: ' + pod.status.reason}. {pod.status.message or ''}".strip())
    for condition in pod.status.conditions or []:
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return JobError(f"{_name(pod)} was disrupted ({condition.reason}): {condition.message}")
    return None


def _end_of_container(pod: k8s.V1Pod, name: str, request: EvaluationRequest) -> ClipOperatorError | None:
    status = next((status for status in pod.status.container_statuses or [] if status.name == name), None)
    end = status and status.state and status.state.terminated
    if end is None:
        return _end_of_init_container(pod)
    smaller = "" if request.batch_size == "auto" else f" smaller than {request.batch_size}"
    smaller = f"Try a batch_size{smaller}, or give it more memory in pod['container_resources']"
    if end.reason == "OOMKilled":
        limit = _memory_limit(pod, name)
        of = f", whose memory limit is {limit}," if limit else ""
        return JobError(f"{_name(pod)}{of} ran out of memory and was killed (OOMKilled). {smaller}")
    if end.exit_code == _KILLED:
        return JobError(f"{_name(pod)} was killed by SIGKILL: by its node, or because it ran out of memory. {smaller}")
    if end.exit_code == 0:
        return JobError(
            f"{_name(pod)} ended well, but its manifest is not at {display(manifest_uri(request.output))}. Do the pod "
            "and this worker reach the same store (endpoint, account, mount)?"
        )
    said = last_error((end.message or "").splitlines())
    text = said or f"{_name(pod)} ended with exit code {end.exit_code} and no message"
    return RequestError(text) if end.exit_code == _WRONG_REQUEST else JobError(text)


def _end_of_init_container(pod: k8s.V1Pod) -> JobError | None:
    for status in pod.status.init_container_statuses or []:
        end = status.state and status.state.terminated
        if end is not None and end.exit_code:
            said = last_error((end.message or "").splitlines()) or "no message"
            return JobError(f"the init container {status.name!r} ended with exit code {end.exit_code}: {said}")
    return None


def _not_started(pod: k8s.V1Pod) -> JobError | None:
    for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
        waiting = status.state and status.state.waiting
        if waiting is None or not waiting.message:
            continue
        if waiting.reason in _IMAGE:
            return JobError(f"the image {status.image!r} cannot be pulled ({waiting.reason}): {waiting.message}")
        return JobError(f"{_name(pod)} could not start ({waiting.reason}): {waiting.message}")
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return JobError(f"no node took {_name(pod)} in time: {condition.message}")
    return None


def _memory_limit(pod: k8s.V1Pod, name: str) -> str | None:
    container = next(container for container in pod.spec.containers if container.name == name)
    limits = container.resources and container.resources.limits
    return (limits or {}).get("memory")


def _name(pod: k8s.V1Pod) -> str:
    return f"the pod {pod.metadata.name}"


def _phase(pod: k8s.V1Pod) -> str:
    return str(pod.status.phase or "unknown").lower()
