"""What is read of a pod and what that says of it: how far it is, whose it is, and whether Kubernetes told at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from kubernetes.client import models as k8s

# Which try watches a pod. The label `try_number`, which KubernetesPodOperator sets, says which one has made it.
TRY = "clip-operator/try"

# So long may one answer of Kubernetes' API take, in seconds: to connect, and between two pieces of the answer.
TIMEOUT = (10, 60)


class PodGone(Exception):
    """There is no such pod."""


class NotTold(Exception):
    """Kubernetes' API did not tell: it was not reached, is busy, or refuses. Of the pod that says nothing."""


class Stage(Enum):
    """How far a pod is."""

    WAITING = "waiting"
    """The container that scores does not run yet."""
    RUNNING = "running"
    ENDED = "ended"
    """The container that scores has ended, whatever others still do, or the pod has."""


class PodReader(Protocol):
    """Reads one pod."""

    async def pod(self) -> k8s.V1Pod:
        """Return the pod as it is now.

        :raises PodGone: there is none.
        :raises NotTold: whether there is one cannot be told.
        """

    async def events(self) -> Sequence[k8s.CoreV1Event]:
        """Return what is kept of the pod's events, or nothing where that cannot be told."""


def stage(pod: k8s.V1Pod, container: str) -> Stage:
    """Return how far a pod is.

    :param container: the name of the container that scores.
    """
    status = container_status(pod, container)
    state = status and status.state
    # An old kubelet leaves the container of a pod that it has ended, such as by its deadline, as running.
    if pod.status.phase in ("Succeeded", "Failed") or (state and state.terminated):
        return Stage.ENDED
    return Stage.RUNNING if state and state.running else Stage.WAITING


def container_status(pod: k8s.V1Pod, name: str) -> k8s.V1ContainerStatus | None:
    """Return what is known of one of a pod's containers, or None if that is nothing yet."""
    return next((status for status in pod.status.container_statuses or [] if status.name == name), None)


def has_succeeded(pod: k8s.V1Pod, container: str) -> bool:
    """Tell whether the container that scores has ended well."""
    status = container_status(pod, container)
    end = status and status.state and status.state.terminated
    return pod.status.phase == "Succeeded" or (end is not None and end.exit_code == 0)


def watched_by(pod: k8s.V1Pod) -> int:
    """Return the number of the try that watches a pod, 0 if it does not say."""
    number = (pod.metadata.annotations or {}).get(TRY, "")
    return int(number) if number.isdecimal() else 0


def problem_of(error: Exception) -> PodGone | NotTold:
    """Return what an error of Kubernetes' clients, or on the way to its API, says of the pod that was read."""
    # Not every 404 is the pod's: an API server that is starting answers so, too.
    details = says(error, "details")
    if getattr(error, "status", None) == 404 and isinstance(details, dict) and details.get("kind") == "pods":
        return PodGone()
    return NotTold(describe_trouble(error))


def describe_trouble(trouble: Exception | None) -> str:
    """Return what an exception says, without the HTTP headers that the Kubernetes client puts into its own text."""
    if trouble is None:
        return "for no reason that is known"
    if hasattr(trouble, "body"):  # of both clients
        text = says(trouble, "message") or f"{getattr(trouble, 'status', '')} {getattr(trouble, 'reason', '')}"
        return str(text).strip()
    return str(trouble) or type(trouble).__name__


def may_pass(error: Exception) -> bool:
    """Tell whether what was asked may succeed when it is asked again, as it is."""
    if isinstance(error, ApiException):
        return not error.status or error.status in (401, 403, 408, 429) or error.status >= 500
    return isinstance(error, (NotTold, HTTPError, ConnectionError, TimeoutError))


def says(error: Exception, field: str) -> object:
    """Return a field of the status with which Kubernetes' API has answered, or None."""
    try:
        body = json.loads(getattr(error, "body", None) or "")
    except ValueError:
        return None
    return body.get(field) if isinstance(body, dict) else None
