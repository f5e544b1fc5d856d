"""The one loop that watches a pod, on a worker and in the triggerer: how it fares, until there is nothing to wait for.

It only looks. What becomes of the pod is decided by who made it, and nothing here takes an answer that did not come for
the pod's end.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clip_operator.operators.execution.pods.reading import NotTold, PodGone, PodReader, Stage, stage

if TYPE_CHECKING:
    from kubernetes.client import models as k8s

log = logging.getLogger(__name__)

# So long what keeps a pod from starting must last before it is taken for what does not mend itself: a Secret may be
# made at the same moment by another hand.
_SECONDS_OF_GRACE = 30
# A pod that is being deleted is gone when its grace period is over, unless its node is lost.
_SECONDS_TO_BE_GONE = 60
# The longest between two questions to an API that does not answer.
_SECONDS_BETWEEN_ATTEMPTS = 15.0

_STUCK = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError"})
# What a registry says that will be able to deliver another time.
_PASSING = re.compile(
    "rate limit|too many requests|toomanyrequests|qps exceeded|quota exceeded|account limit|time-?out|timed out|"
    "deadline exceeded|temporar|unavailable|bad gateway|connection (refused|reset)|i/o error|"
    "unexpected eof",
    re.IGNORECASE,
)
_MISSING = re.compile(r'(configmap|secret|persistentvolumeclaim) "[^"]+" not found|references non-existent \w+ key')


@dataclass(frozen=True)
class Patience:
    """How often a pod is looked at, and for how long it is waited for.

    :param container: the name of the container that scores.
    :param schedule_seconds: until a node has taken the pod, from ``since`` on.
    :param startup_seconds: from then until the container runs.
    :param check_seconds: between two looks until it runs.
    :param poll_seconds: between two looks from then on.
    :param outage_seconds: for which Kubernetes' API may be silent.
    :param log_events: whether the events of a pod that is starting are logged.
    :param since: when the pod was made or found, in seconds since the epoch, of the watching side's clock.
    """

    container: str
    schedule_seconds: float
    startup_seconds: float
    check_seconds: float
    poll_seconds: float
    outage_seconds: float
    log_events: bool
    since: float


@dataclass(frozen=True)
class Sight:
    """What one look at a pod showed.

    :param pod: the pod, as it was when it was last seen; None if it never was.
    :param stage: how far it is; None if it is gone.
    :param stuck: why it is not going to start.
    :param silent_since: since when Kubernetes' API has not told, in seconds since the epoch; and
    :param silence: what it said in place of it.
    :param given_up: it has not told for too long.
    """

    pod: k8s.V1Pod | None
    stage: Stage | None
    stuck: str | None = None
    silent_since: float | None = None
    silence: str = ""
    given_up: bool = False

    @property
    def last(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.given_up or self.stuck is not None or self.stage in (None, Stage.ENDED)


async def sights(
    reader: PodReader, patience: Patience, pod: k8s.V1Pod | None = None, silent_since: float | None = None
) -> AsyncIterator[Sight]:
    """Look at a pod again and again; yield what is seen each time, the last of all where the pod has ended, is gone, is
    not going to start, or is not told of for too long.

    :param pod: the pod as it was seen before.
    :param silent_since: since when Kubernetes' API had been silent before.
    """
    waiting = _Waiting(patience)
    sight: Sight | None = None
    attempts = 0
    while sight is None or not sight.last:
        before = sight
        try:
            pod = await reader.pod()
            silent_since, attempts = None, 0
            sight = await _seen(reader, pod, waiting)
        except PodGone:
            sight = Sight(pod, None)
        except NotTold as problem:
            now = time.time()
            silent_since = now if silent_since is None else silent_since
            attempts += 1
            here = sight.stage if sight is not None else Stage.WAITING
            given_up = now - silent_since >= patience.outage_seconds
            sight = Sight(pod, here or Stage.WAITING, None, silent_since, str(problem), given_up)
        _tell(before, sight)
        yield sight
        if not sight.last:
            await asyncio.sleep(_seconds_to_next(sight, patience, attempts))


async def _seen(reader: PodReader, pod: k8s.V1Pod, waiting: _Waiting) -> Sight:
    at = stage(pod, waiting.patience.container)
    if at is Stage.ENDED:
        return Sight(pod, at)
    if waiting.is_lost(pod):
        return Sight(pod, None)
    if at is Stage.WAITING and pod.metadata.deletion_timestamp is None:
        return Sight(pod, at, waiting.is_stuck(pod, await reader.events()))
    return Sight(pod, at)


def _tell(before: Sight | None, now: Sight) -> None:
    """Log what has changed since the look before, if there was one."""
    if now.silent_since is not None:
        if before is None or before.silent_since is None:
            log.warning(
                "Kubernetes' API does not tell how the pod fares: %s. The pod is left to work on, and is looked at "
                "again when the API does",
                now.silence,
            )
        return
    if before is None:
        return
    if before.silent_since is not None:
        log.info("Kubernetes' API tells again how the pod fares")
    if now.stage is not before.stage and now.pod is not None:
        words = {Stage.RUNNING: f"runs on the node {now.pod.spec.node_name}", Stage.ENDED: "has ended", None: "is gone"}
        log.info("The pod %s %s", now.pod.metadata.name, words.get(now.stage, "is not running"))


def _seconds_to_next(sight: Sight, patience: Patience, attempts: int) -> float:
    pause = patience.poll_seconds if sight.stage is Stage.RUNNING else patience.check_seconds
    if sight.silent_since is None:
        return pause
    return min(pause * 2.0 ** min(attempts - 1, 8), max(pause, _SECONDS_BETWEEN_ATTEMPTS))


class _Waiting:
    """Decides for how long a pod is waited for that does not run yet, or is to go."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._logged: set[tuple[str, int]] = set()
        self._held = 0.0  # seconds in which a scheduling gate held the pod back
        self._looked = patience.since
        self._scheduled: float | None = None
        self._obstacle_since: float | None = None
        self._pull_error = ""
        self._deleted: float | None = None

    def is_lost(self, pod: k8s.V1Pod) -> bool:
        """Tell whether a pod ought to be gone, and nobody is there to confirm it: its node is lost."""
        if pod.metadata.deletion_timestamp is None:
            return False
        now = time.monotonic()
        self._deleted = now if self._deleted is None else self._deleted
        return now - self._deleted > (pod.metadata.deletion_grace_period_seconds or 0) + _SECONDS_TO_BE_GONE

    def is_stuck(self, pod: k8s.V1Pod, events: Sequence[k8s.CoreV1Event]) -> str | None:
        """Return why a pod is not going to start, or None as long as it may."""
        now = time.time()
        if self.patience.log_events:
            self._log(events)
        obstacle = self._obstacle(pod, events)
        if obstacle is None:
            self._obstacle_since = None
        elif self._obstacle_since is None:
            self._obstacle_since = now
        elif now - self._obstacle_since >= _SECONDS_OF_GRACE:
            return obstacle
        return self._overdue(pod, now)

    def _overdue(self, pod: k8s.V1Pod, now: float) -> str | None:
        scheduled = next((c for c in pod.status.conditions or [] if c.type == "PodScheduled"), None)
        if scheduled is not None and scheduled.reason == "SchedulingGated":
            self._held += now - self._looked  # a queue, such as Kueue's, lets it go in its turn
        self._looked = now
        if scheduled is not None and scheduled.status == "True":
            self._scheduled = now if self._scheduled is None else self._scheduled
            late = now - self._scheduled >= self.patience.startup_seconds
            return _not_started(pod, self._pull_error, self.patience.startup_seconds) if late else None
        if now - self.patience.since - self._held < self.patience.schedule_seconds:
            return None
        why = (scheduled and scheduled.message) or "the scheduler says nothing of it"
        return f"no node took the pod {pod.metadata.name} in {self.patience.schedule_seconds:.0f} s: {why}"

    def _obstacle(self, pod: k8s.V1Pod, events: Sequence[k8s.CoreV1Event]) -> str | None:
        """Return what keeps the pod from starting and does not mend itself."""
        for status in _statuses(pod):
            waits = status.state and status.state.waiting
            reason = (waits and waits.reason) or ""
            if reason in _PULLING:
                self._pull_error = _pull_error(waits.message or "", events) or self._pull_error
                words = self._pull_error or waits.message or ""
                return None if _PASSING.search(words) else _no_image(status, reason, words)
            if reason == "InvalidImageName":
                return _no_image(status, reason, waits.message)
            if reason in _STUCK and not _PASSING.search(waits.message or ""):
                return _refused(pod, waits)
        failed = [event for event in events if event.reason in ("FailedMount", "FailedScheduling") and event.message]
        missing = next((event for event in reversed(failed) if _MISSING.search(event.message)), None)
        return missing and f"the pod {pod.metadata.name} cannot start ({missing.reason}): {missing.message}"

    def _log(self, events: Sequence[k8s.CoreV1Event]) -> None:
        for event in events:
            key = (event.metadata.uid, event.count or 1)
            if key not in self._logged:
                self._logged.add(key)
                level = logging.WARNING if event.type == "Warning" else logging.INFO
                log.log(level, "%s: %s", event.reason, event.message)


def _statuses(pod: k8s.V1Pod) -> list[k8s.V1ContainerStatus]:
    return [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]


def _pull_error(message: str, events: Sequence[k8s.CoreV1Event]) -> str:
    """Return what is wrong with a pull, if that is told: while an older kubelet backs off, only its events do."""
    if not message.startswith("Back-off"):
        return message
    failed = [event.message for event in events if (event.message or "").startswith("Failed to pull image")]
    return failed[-1] if failed else ""


def _no_image(status: k8s.V1ContainerStatus, reason: str, words: str | None) -> str:
    return f"the image {status.image!r} cannot be pulled ({reason}): {words or 'no more is said'}"


def _refused(pod: k8s.V1Pod, waiting: k8s.V1ContainerStateWaiting) -> str:
    return f"the pod {pod.metadata.name} could not start ({waiting.reason}): {waiting.message or 'no more is said'}"


def _not_started(pod: k8s.V1Pod, pull_error: str, seconds: float) -> str:
    for status in _statuses(pod):
        waits = status.state and status.state.waiting
        if waits is not None and waits.reason in _PULLING:
            return _no_image(status, waits.reason, pull_error or waits.message)
        if waits is not None and waits.message:
            return _refused(pod, waits)
    reasons = [s.state.waiting.reason for s in _statuses(pod) if s.state and s.state.waiting and s.state.waiting.reason]
    state = reasons[0] if reasons else str(pod.status.phase).lower()
    return f"the pod {pod.metadata.name} did not start within {seconds:.0f} s ({state})"
