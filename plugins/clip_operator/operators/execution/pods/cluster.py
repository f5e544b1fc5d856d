"""What a worker asks of Kubernetes' API for the one pod of its task instance, and how long it goes on asking."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import ApiException, CoreV1Api, V1DeleteOptions, V1Preconditions
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from clip_operator.errors import Cancelled
from clip_operator.operators.execution.pods.reading import (
    TIMEOUT,
    TRY,
    NotTold,
    PodGone,
    describe_trouble,
    may_pass,
    problem_of,
    says,
    watched_by,
)

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from kubernetes.client import models as k8s
    from urllib3 import BaseHTTPResponse

log = logging.getLogger(__name__)

T = TypeVar("T")

# Of a task instance's labels, those that its pods have in common, whichever try has made them.
_ITS_LABELS = ("dag_id", "task_id", "run_id", "map_index", "kubernetes_pod_operator")
_CHECKED = "already_checked"  # KubernetesPodOperator's word for a pod that no later try is to go on with

# An API server that has just started forbids everything for some seconds, and so does one that means it.
_SECONDS_FORBIDDEN = 20
_SECONDS_BETWEEN_ATTEMPTS = (1.0, 10.0)
_ATTEMPTS_AT_A_CHANGING_POD = 10

# What the client and the way to it raise.
TROUBLES = (ApiException, HTTPError, OSError, ConfigException, AirflowException)


class Cluster:
    """Kubernetes, as a worker sees it.

    :param operator: knows how its API is reached.
    :param stop: when set, nothing is asked again.
    """

    def __init__(self, operator: KubernetesPodOperator, stop: threading.Event) -> None:
        self._operator = operator
        self._stop = stop

    @property
    def client(self) -> CoreV1Api:
        """The Kubernetes client."""
        client: CoreV1Api = self._operator.client
        # When to ask again is decided here; urllib3 would do so three times at once, and log each.
        client.api_client.rest_client.pool_manager.connection_pool_kw["retries"] = 0
        return client

    def of_task_instance(self, pod: k8s.V1Pod, seconds: float) -> list[k8s.V1Pod]:
        """Return the pods of the same task instance as ``pod``, the newest first, but for those that are being deleted,
        which are nobody's, and those that a try has done with."""
        labels = [f"{name}={pod.metadata.labels[name]}" for name in _ITS_LABELS if name in pod.metadata.labels]
        if "map_index" not in pod.metadata.labels:
            labels.append("!map_index")
        selector = ",".join([*labels, f"{_CHECKED}!=True", "!airflow-worker"])
        found = self.patiently(
            lambda: (
                self.client.list_namespaced_pod(
                    pod.metadata.namespace, label_selector=selector, _request_timeout=TIMEOUT
                ).items
            ),
            seconds,
        )
        live = [each for each in found if each.metadata.deletion_timestamp is None]
        return sorted(live, key=lambda each: each.metadata.creation_timestamp, reverse=True)

    def create(self, pod: k8s.V1Pod, seconds: float) -> k8s.V1Pod:
        """Make a pod, and return it as Kubernetes knows it.

        An answer that was lost on its way makes no second one: it has a name of its own.
        """
        space, name = pod.metadata.namespace, pod.metadata.name

        def attempt() -> k8s.V1Pod:
            try:
                return self.client.create_namespaced_pod(space, pod, _request_timeout=TIMEOUT)
            except ApiException as error:
                if error.status != 409:
                    raise
                if says(error, "reason") != "AlreadyExists":  # such as a quota that two pods were counted in at once
                    raise NotTold(describe_trouble(error)) from None
                there = self._there(name, space)
                if there is None or there.metadata.deletion_timestamp is not None:
                    raise NotTold(f"a pod called {name} is still being deleted") from None
                if there.metadata.annotations == pod.metadata.annotations:
                    return there
                raise

        return self.patiently(attempt, seconds)

    def _there(self, name: str, space: str) -> k8s.V1Pod | None:
        try:
            return self.client.read_namespaced_pod(name, space, _request_timeout=TIMEOUT)
        except ApiException as error:
            if error.status != 404:
                raise
            return None

    def read(self, pod: k8s.V1Pod) -> k8s.V1Pod:
        """Return a pod as it is now.

        :raises PodGone: there is none of its name, or another one.
        :raises NotTold: whether there is one cannot be told.
        """
        try:
            now = self.client.read_namespaced_pod(pod.metadata.name, pod.metadata.namespace, _request_timeout=TIMEOUT)
        except TROUBLES as error:
            if getattr(error, "status", None) == 401:
                self._renew()
            raise problem_of(error) from error
        if pod.metadata.uid not in (None, now.metadata.uid):
            raise PodGone
        return now

    def events(self, pod: k8s.V1Pod) -> Sequence[k8s.CoreV1Event]:
        """Return what is kept of a pod's events, the oldest first, or nothing where that cannot be told."""
        try:
            listed = self.client.list_namespaced_event(
                pod.metadata.namespace,
                field_selector=f"involvedObject.name={pod.metadata.name}",
                _request_timeout=TIMEOUT,
            )
        except TROUBLES as error:  # they are only told
            log.debug("the events of the pod cannot be listed: %s", error)
            return ()
        return in_order(listed.items)

    def log_since(self, pod: k8s.V1Pod, container: str, seconds: int | None) -> BaseHTTPResponse:
        """Return the answer whose body is what a container has written in the last so many seconds, or ever, each line
        behind its time."""
        since = {} if seconds is None else {"since_seconds": seconds}
        response: BaseHTTPResponse = self.client.read_namespaced_pod_log(
            pod.metadata.name,
            pod.metadata.namespace,
            container=container,
            timestamps=True,
            _preload_content=False,
            _request_timeout=TIMEOUT,
            **since,
        )
        return response

    def take_over(self, pod: k8s.V1Pod, number: int, seconds: float) -> k8s.V1Pod:
        """Have a pod say that the try of this number watches it, unless a later one does; return it."""

        def say(now: k8s.V1Pod) -> k8s.V1Pod:
            if watched_by(now) >= number:
                return now
            return self._patch(now, {"annotations": {TRY: str(number)}})

        return self._changing(pod, say, seconds)

    def done_with(self, pod: k8s.V1Pod, number: int, seconds: float) -> None:
        """Mark a pod that stays, so that no later try goes on with it, unless one watches it."""

        def mark(now: k8s.V1Pod) -> None:
            if watched_by(now) <= number:
                self._patch(now, {"labels": {_CHECKED: "True"}})

        self._changing(pod, mark, seconds)

    def delete(self, pod: k8s.V1Pod, number: int, seconds: float, grace: int | None = None) -> bool:
        """Delete a pod, unless a later try than the one of this number watches it; return whether it was.

        :param grace: seconds from SIGTERM to SIGKILL. Default: the pod's own.
        """

        def remove(now: k8s.V1Pod) -> bool:
            if watched_by(now) > number:
                log.info("The pod %s is watched by try %d, and stays", now.metadata.name, watched_by(now))
                return False
            if now.metadata.deletion_timestamp is None:
                unchanged = V1Preconditions(uid=now.metadata.uid, resource_version=now.metadata.resource_version)
                options = V1DeleteOptions(preconditions=unchanged, grace_period_seconds=grace)
                self.client.delete_namespaced_pod(
                    now.metadata.name, now.metadata.namespace, body=options, _request_timeout=TIMEOUT
                )
            return True

        return self._changing(pod, remove, seconds, stoppable=False)

    def patiently(self, ask: Callable[[], T], seconds: float, *, stoppable: bool = True) -> T:
        """Return what ``ask`` returns; where the API is not reached, is busy or has just started, ask again.

        :param seconds: for which to go on asking.
        :raises Cancelled: the task was stopped in the meantime.
        """
        start, pause, told = time.monotonic(), _SECONDS_BETWEEN_ATTEMPTS[0], False
        while True:
            try:
                return ask()
            except (*TROUBLES, NotTold) as error:
                bearable = min(seconds, _SECONDS_FORBIDDEN) if _is_forbidden(error) else seconds
                if not may_pass(error) or time.monotonic() - start + pause > bearable:
                    raise
                if not told:
                    told = True
                    log.warning(
                        "Kubernetes' API does not do what is asked: %s. It is asked again", describe_trouble(error)
                    )
                if getattr(error, "status", None) == 401:
                    self._renew()
            if stoppable and self._stop.wait(pause):
                raise Cancelled("stopped before Kubernetes' API did what was asked")
            if not stoppable:
                time.sleep(pause)  # the task is being stopped: that is what is asked
            pause = min(2 * pause, _SECONDS_BETWEEN_ATTEMPTS[1])

    def _changing(
        self, pod: k8s.V1Pod, change: Callable[[k8s.V1Pod], T], seconds: float, *, stoppable: bool = True
    ) -> T:
        """Change a pod as it is now; where it has changed in between, look at it again."""

        def attempt() -> T:
            for _ in range(_ATTEMPTS_AT_A_CHANGING_POD):
                try:
                    return change(self.read(pod))
                except ApiException as error:
                    if error.status == 404:
                        raise PodGone from None
                    if error.status != 409:
                        raise
            raise NotTold(f"the pod {pod.metadata.name} changes faster than it can be changed")

        return self.patiently(attempt, seconds, stoppable=stoppable)

    def _patch(self, pod: k8s.V1Pod, metadata: dict[str, Any]) -> k8s.V1Pod:
        unchanged = {"resourceVersion": pod.metadata.resource_version}
        return self.client.patch_namespaced_pod(
            pod.metadata.name,
            pod.metadata.namespace,
            {"metadata": {**unchanged, **metadata}},
            _request_timeout=TIMEOUT,
        )

    def _renew(self) -> None:
        """Forget the client, whose credentials are no longer taken: the next one reads them anew."""
        for name in ("hook", "client", "pod_manager"):
            vars(self._operator).pop(name, None)


class WorkerReader:
    """Reads a pod for :func:`~clip_operator.operators.execution.pods.watch.sights`, on a worker."""

    def __init__(self, cluster: Cluster, pod: k8s.V1Pod) -> None:
        self._cluster = cluster
        self._pod = pod

    async def pod(self) -> k8s.V1Pod:
        return self._cluster.read(self._pod)

    async def events(self) -> Sequence[k8s.CoreV1Event]:
        return self._cluster.events(self._pod)


def in_order(events: Sequence[k8s.CoreV1Event]) -> Sequence[k8s.CoreV1Event]:
    """Return events the oldest first."""
    return sorted(events, key=lambda event: str(event.last_timestamp or event.event_time or event.first_timestamp))


def _is_forbidden(error: Exception) -> bool:
    return getattr(error, "status", None) == 403
