"""Why a pod did not do its work, in words for the person whose task it was."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubernetes.client import ApiException

from clip_operator.errors import ClipOperatorError, JobError, RequestError
from clip_operator.operators.execution.log_lines import last_error
from clip_operator.operators.execution.pods.reading import container_status, describe_trouble, has_succeeded
from clip_operator.request import EvaluationRequest
from clip_operator.steps import manifest_uri
from clip_operator.storage import display

if TYPE_CHECKING:
    from kubernetes.client import models as k8s

    from clip_operator.operators.execution.pods.watch import Sight

_WRONG_REQUEST = 2  # the command line's exit code
_KILLED = 128 + 9
_GOES_ON = "Another try goes on behind the last resume point"
# Events that tell why a pod had to go.
_TELLING = re.compile("Killing|Preempt|Evict|Taint|NodeShutdown|NodeNotReady|Terminat|ExceededGracePeriod|NodeLost")
_EVENTS_TOLD = 3
_REFUSED = (400, 422)  # HTTP: another try would be refused again


@dataclass(frozen=True)
class End:
    """What is known of a pod that nobody waits for any more.

    :param name: its name; None if there never was one.
    :param container: the name of the container that scores.
    :param sight: what was last seen of it.
    :param events: what is kept of its events, the oldest first.
    :param trouble: what went wrong for the one who watched it.
    :param overdue: the task's time was up.
    """

    name: str | None
    container: str
    sight: Sight
    events: Sequence[k8s.CoreV1Event] = ()
    trouble: Exception | None = None
    overdue: bool = False


def explain(end: End, request: EvaluationRequest) -> ClipOperatorError:
    """Return the error that says why there is no output.

    :return: a :class:`RequestError` where another try would end the same way.
    """
    sight = end.sight
    if end.name is None:
        return _never_made(end.trouble)
    if end.overdue:
        return JobError(f"the pod {end.name} was ended, because the task's execution_timeout is over")
    if sight.stuck is not None:
        return JobError(sight.stuck)
    if sight.silent_since is not None:
        return JobError(
            f"Kubernetes' API has not told for {time.time() - sight.silent_since:.0f} s how the pod {end.name} fares: "
            f"{sight.silence}. The pod is left alone: if it still works, the next try goes on with it"
        )
    # From the outside in: a pod that is evicted also ends its container, which then speaks of a signal.
    return (
        _disruption(end)
        or _end_of_container(end, request)
        or JobError(f"the pod {end.name} was {_state(sight)} when watching it ended: {describe_trouble(end.trouble)}")
    )


def _never_made(trouble: Exception | None) -> ClipOperatorError:
    words = describe_trouble(trouble)
    if isinstance(trouble, ApiException):
        text = f"Kubernetes' API refused: {words}"
        return RequestError(text) if trouble.status in _REFUSED else JobError(text)
    return JobError(f"the pod could not be run: {words}")


def _disruption(end: End) -> JobError | None:
    """Return why the pod itself had to go, whatever its container did."""
    pod, name = end.sight.pod, end.name
    if pod is not None and pod.status.reason:
        what = {"Evicted": "evicted", "DeadlineExceeded": "ended by its deadline"}.get(pod.status.reason)
        what = what or f"ended: {pod.status.reason}"
        return JobError(f"the pod {name} was {what}. {pod.status.message or ''}".strip())
    for condition in (pod is not None and pod.status.conditions) or []:
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return JobError(f"the pod {name} was disrupted ({condition.reason}): {condition.message}. {_GOES_ON}")
    if pod is None or end.sight.stage is None:
        return JobError(f"the pod {name} is gone and has left no manifest: {_who(end.events)}. {_GOES_ON}")
    if pod.metadata.deletion_timestamp is not None and not has_succeeded(pod, end.container):
        return JobError(f"the pod {name} was deleted before it had done its work: {_who(end.events)}. {_GOES_ON}")
    return None


def _who(events: Sequence[k8s.CoreV1Event]) -> str:
    """Return what the events tell of why a pod had to go."""
    told = [f"{event.reason}: {event.message}" for event in events if _TELLING.search(event.reason or "")]
    if told:
        return "; ".join(dict.fromkeys(told[-_EVENTS_TOLD:]))
    return "somebody or something deleted it through Kubernetes' API, or its node was lost"


def _end_of_container(end: End, request: EvaluationRequest) -> ClipOperatorError | None:
    pod, name = end.sight.pod, end.container
    if pod is None:
        return None
    status = container_status(pod, name)
    terminated = status and status.state and status.state.terminated
    if terminated is None:
        return _end_of_init_container(pod)
    smaller = "" if request.batch_size == "auto" else f", or try a batch_size smaller than {request.batch_size}"
    smaller = f"Give it more memory in pod['container_resources']{smaller}"
    if terminated.reason == "OOMKilled":
        limit = _memory_limit(pod, name)
        of = f", whose memory limit is {limit}," if limit else ""
        return JobError(f"{_name(pod)}{of} ran out of memory and was killed (OOMKilled). {smaller}")
    if terminated.exit_code == _KILLED:
        return JobError(f"{_name(pod)} was killed by SIGKILL: by its node, or because it ran out of memory. {smaller}")
    if terminated.exit_code == 0:
        return JobError(
            f"{_name(pod)} ended well, but its manifest is not at {display(manifest_uri(request.output))}. Do the pod "
            "and this worker reach the same store (endpoint, account, mount)?"
        )
    said = last_error((terminated.message or "").splitlines())
    text = said or f"{_name(pod)} ended with exit code {terminated.exit_code} and no message"
    return RequestError(text) if terminated.exit_code == _WRONG_REQUEST else JobError(text)


def _end_of_init_container(pod: k8s.V1Pod) -> JobError | None:
    for status in pod.status.init_container_statuses or []:
        end = status.state and status.state.terminated
        if end is not None and end.exit_code:
            said = last_error((end.message or "").splitlines()) or "no message"
            return JobError(f"the init container {status.name!r} ended with exit code {end.exit_code}: {said}")
    return None


def _memory_limit(pod: k8s.V1Pod, name: str) -> str | None:
    container = next(container for container in pod.spec.containers if container.name == name)
    limits = container.resources and container.resources.limits
    return (limits or {}).get("memory")


def _name(pod: k8s.V1Pod) -> str:
    return f"the pod {pod.metadata.name}"


def _state(sight: Sight) -> str:
    return "gone" if sight.stage is None else sight.stage.value
