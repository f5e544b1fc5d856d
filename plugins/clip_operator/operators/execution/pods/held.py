"""The pod of a task instance in the hands of one try: made or taken over, watched, cleared away or left to the next."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode
from airflow.providers.cncf.kubernetes.utils.pod_manager import OnFinishAction, OnKillAction
from kubernetes.client import models as k8s

from clip_operator.errors import Cancelled
from clip_operator.operators.execution.pods.cluster import TROUBLES, Cluster, WorkerReader
from clip_operator.operators.execution.pods.end import End
from clip_operator.operators.execution.pods.logs import PodLog
from clip_operator.operators.execution.pods.pod import ScoringPod
from clip_operator.operators.execution.pods.reading import (
    TRY,
    NotTold,
    PodGone,
    Stage,
    describe_trouble,
    has_succeeded,
    stage,
)
from clip_operator.operators.execution.pods.trigger import PodTrigger, pod_trigger
from clip_operator.operators.execution.pods.watch import Patience, Sight, sights

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

_REQUEST = "clip-operator/request"  # what a pod was asked to do, as a digest

# Until there is a pod nothing is lost, and who has mistaken the cluster's address is to hear of it.
_SECONDS_TO_MAKE_IT = 120
# What is left to do when the work is done, or the task is being stopped, is not worth a long wait.
_SECONDS_TO_CLEAR_AWAY = 30
_SECONDS_TO_CLEAR_AWAY_IN_SILENCE = 300  # while an API server is away, which is seldom for longer
_SECONDS_TO_READ_THE_END = 15
_SECONDS_BETWEEN_LOOKS_INTO_THE_STORE = 15


class HeldPod:
    """What one try does with the pod of its task instance.

    A pod says which try watches it. A try deletes none that a later one watches, and none that is at work, but where
    the task is stopped.

    :param operator: builds the pod, and has the user's word on all that becomes of it.
    :param context: the running task's.
    :param outage_seconds: for which Kubernetes' API may be silent.
    :param stop: set when the task is being stopped.
    """

    def __init__(self, operator: ScoringPod, context: Context, outage_seconds: float, stop: threading.Event) -> None:
        self._operator = operator
        self._context = context
        self._outage_seconds = outage_seconds
        self._stop = stop
        self._try = int(context["ti"].try_number)
        self._cluster = Cluster(operator, stop)
        self._log = PodLog(operator, self._cluster)
        self._started = False
        self._known: k8s.V1Pod | None = None  # its name at least
        self.sight = Sight(None, Stage.WAITING)
        """What was last seen of it."""

    @property
    def pod(self) -> k8s.V1Pod | None:
        """The pod as it was last seen, None if it never was."""
        return self.sight.pod

    @property
    def name(self) -> str | None:
        """The pod's name, None before there is a pod."""
        return None if self._known is None else str(self._known.metadata.name)

    @property
    def container(self) -> str:
        """The name of the container that scores."""
        return str(self._operator.base_container_name)

    def end_of(self, trouble: Exception | None, *, overdue: bool) -> End:
        """Return what is known of the pod's end.

        :param trouble: what went wrong for the one who watched it.
        :param overdue: the task's time was up.
        """
        events = () if self._known is None else self._cluster.events(self._known)
        return End(self.name, self.container, self.sight, events, trouble, overdue=overdue)

    # ------------------------------------------------------------------------------------------- to have a pod

    def open(self) -> None:
        """Go on with the pod of an earlier try that is at work on the same; where there is none, make one.

        A pod that has ended is not gone on with: whether its work still holds is seen by the next one, which reads the
        input's and the model's versions, and is done at once if it does.
        """
        wanted = self._operator.build_pod_request_obj(self._context)
        wanted.metadata.annotations = {
            **(wanted.metadata.annotations or {}),
            _REQUEST: _digest(wanted, self.container),
            TRY: str(self._try),
        }
        self._call_back("on_pod_manifest_created", pod_request=wanted)
        pod = self._found(wanted)
        if pod is None:
            pod = self._create(wanted)
            log.info("Made the pod %s in the namespace %s", pod.metadata.name, pod.metadata.namespace)
        self._known = pod
        self.sight = Sight(pod, stage(pod, self.container))
        for key in ("name", "namespace"):
            self._context["ti"].xcom_push(key=f"pod_{key}", value=getattr(pod.metadata, key))
        if self._stop.is_set():  # while the pod was being made, when there was nothing to delete yet
            self.kill()
            raise Cancelled("stopped before the pod ran")
        self._call_back("on_pod_creation")

    def _create(self, wanted: k8s.V1Pod) -> k8s.V1Pod:
        try:
            return self._cluster.create(wanted, _SECONDS_TO_MAKE_IT)
        except Cancelled:  # what was asked last may have been done, although no answer came
            self._known = wanted
            self.kill()
            raise

    def _found(self, wanted: k8s.V1Pod) -> k8s.V1Pod | None:
        """Return the pod to go on with, if there is one."""
        for pod in self._cluster.of_task_instance(wanted, _SECONDS_TO_MAKE_IT):
            name, asked = pod.metadata.name, (pod.metadata.annotations or {}).get(_REQUEST)
            if asked != wanted.metadata.annotations[_REQUEST]:
                log.warning("The pod %s of this task was asked for something else, and is left alone", name)
            elif stage(pod, self.container) is Stage.ENDED or not self._operator.durable:
                self._clear(pod)
            else:
                with suppress(PodGone):
                    pod = self._cluster.take_over(pod, self._try, _SECONDS_TO_MAKE_IT)
                    log.info("Go on with the pod %s of an earlier try", name)
                    return pod
        return None

    # ------------------------------------------------------------------------------------------- to watch it

    def patience(self, poll_seconds: float) -> Patience:
        """Return for how long the pod is waited for, from now on."""
        operator = self._operator
        return Patience(
            container=self.container,
            schedule_seconds=operator.schedule_timeout_seconds,
            startup_seconds=operator.startup_timeout_seconds,
            check_seconds=operator.startup_check_interval_seconds,
            poll_seconds=poll_seconds,
            outage_seconds=self._outage_seconds,
            log_events=operator.log_events_on_startup,
            since=time.time(),
        )

    def watch(self, has_done: Callable[[], bool]) -> None:
        """Watch the pod to its end, and tell its log.

        :param has_done: looks into the store whether the pod did its work, for when Kubernetes does not tell.
        :raises Cancelled: the task is being stopped.
        """
        asyncio.run(self._watch(has_done))

    async def _watch(self, has_done: Callable[[], bool]) -> None:
        assert self.pod is not None
        patience = self.patience(self._operator.base_container_status_polling_interval)
        next_look = 0.0
        async for sight in sights(WorkerReader(self._cluster, self.pod), patience, self.pod):
            self._see(sight)
            if self._stop.is_set():
                raise Cancelled("stopped before the pod ended")
            if sight.silent_since is not None and time.monotonic() >= next_look:
                next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS_INTO_THE_STORE
                if has_done():
                    return

    def return_to(self, name: str, namespace: str, sight: Sight, told: Mapping[str, Any]) -> None:
        """Take in what the triggerer has seen of a pod, look at it once more, and tell what is new in its log.

        :param sight: what the triggerer saw last; the pod itself is not in it.
        :param told: how far the log has been told, as :meth:`log_position` has returned it.
        """
        self._known = known = k8s.V1Pod(metadata=k8s.V1ObjectMeta(name=name, namespace=namespace))
        self._log = PodLog(self._operator, self._cluster, told)
        self._started = bool(told)
        self.sight = sight
        if sight.silent_since is not None:
            return
        try:
            pod = self._cluster.patiently(lambda: self._cluster.read(known), _SECONDS_TO_CLEAR_AWAY)
        except PodGone:
            self._see(Sight(None, None))
        except NotTold as problem:
            self._see(replace(sight, silent_since=time.time(), silence=str(problem)))
        else:
            at = stage(pod, self.container)
            self._see(Sight(pod, at, sight.stuck if at is Stage.WAITING else None))

    def log_position(self) -> dict[str, Any]:
        """Return how far the log has been told, as JSON has it."""
        return self._log.keep()

    def _see(self, sight: Sight) -> None:
        self.sight = sight
        if sight.pod is None or sight.silent_since is not None or sight.stage is None:
            return
        if sight.stage is not Stage.WAITING and not self._started:
            self._started = True
            self._call_back("on_pod_starting")
        deadline = time.monotonic() + (_SECONDS_TO_READ_THE_END if sight.stage is Stage.ENDED else 0)
        while not self._log.read(sight.pod) and time.monotonic() < deadline and not self._stop.wait(1):
            pass

    # ------------------------------------------------------------------------------------------- to let go of it

    def end(self) -> None:
        """Do with a pod that has ended, or is not going to start, what the user wants; leave one that may be at work.

        What Kubernetes does not let happen now is told, and no failure: the work is done, or it is not.
        """
        pod, sight = self.pod, self.sight
        if pod is None or sight.stage is None or sight.silent_since is not None or not sight.last:
            return
        if not has_succeeded(pod, self.container):
            self._tell_of_failure(pod)
        self._call_back("on_pod_completion")
        self._call_back("on_pod_teardown")
        self._clear(pod)
        self._call_back("on_pod_cleanup")

    def put_away(self) -> None:
        """Do what the user wants of a pod that is done, as soon as Kubernetes tells again how it fares."""
        if self._known is None:
            return
        log.info("The pod %s has done its work, as the manifest tells while Kubernetes does not", self.name)

        def wait_and_clear(known: k8s.V1Pod) -> None:
            pod = self._cluster.patiently(lambda: self._cluster.read(known), _SECONDS_TO_CLEAR_AWAY_IN_SILENCE)
            self._clear(pod)

        self._let_go(wait_and_clear, self._known)

    def trigger(self, deadline: float | None, kept: Mapping[str, Any]) -> PodTrigger:
        """Return what watches the pod in the triggerer.

        :param deadline: when the task's time is up, in seconds since the epoch.
        :param kept: what its event is to hold beside its own.
        """
        assert self._known is not None
        patience = self.patience(self._operator.poll_interval)
        silent_since = self.sight.silent_since
        return pod_trigger(self._operator, self._known, patience, self._try, silent_since, deadline, kept)

    def kill(self) -> None:
        """Delete the pod because the task is being stopped, unless that is to leave it."""
        if self._known is None or self._operator.on_kill_action == OnKillAction.KEEP_POD:
            return
        self._let_go(
            lambda pod: self._cluster.delete(
                pod, self._try, _SECONDS_TO_CLEAR_AWAY, self._operator.termination_grace_period
            ),
            self._known,
        )

    def _clear(self, pod: k8s.V1Pod) -> None:
        """Delete a pod or keep it, as the user wants it of one that is done."""
        action = self._operator.on_finish_action
        unwanted = (
            action == OnFinishAction.DELETE_POD
            or (action == OnFinishAction.DELETE_SUCCEEDED_POD and has_succeeded(pod, self.container))
            or (action == OnFinishAction.DELETE_ACTIVE_POD and pod.status.phase in ("Pending", "Running"))
        )
        clear = self._cluster.delete if unwanted else self._cluster.done_with
        self._let_go(lambda pod: clear(pod, self._try, _SECONDS_TO_CLEAR_AWAY), pod)

    @staticmethod
    def _let_go(way: Callable[[k8s.V1Pod], object], pod: k8s.V1Pod) -> None:
        try:
            way(pod)
        except PodGone:
            pass
        except (*TROUBLES, NotTold) as error:
            log.warning("The pod %s stays until it is deleted by hand: %s", pod.metadata.name, describe_trouble(error))

    def _tell_of_failure(self, pod: k8s.V1Pod) -> None:
        if self._operator.log_events_on_failure:
            for event in self._cluster.events(pod):
                level = logging.WARNING if event.type == "Warning" else logging.INFO
                log.log(level, "Event of the pod: %s: %s", event.reason, event.message)
        if self._operator.log_pod_spec_on_failure:
            log.info("The pod: %s", pod)

    def _call_back(self, name: str, **more: Any) -> None:
        for callback in self._operator.callbacks:
            getattr(callback, name)(
                **(more or {"pod": self.pod}),
                client=self._cluster.client,
                mode=ExecutionMode.SYNC,
                operator=self._operator,
                context=self._context,
            )


def _digest(pod: k8s.V1Pod, container: str) -> str:
    """Return a digest of what the pod is asked to do, and by which image."""
    base = next(each for each in pod.spec.containers if each.name == container)
    return hashlib.sha256(json.dumps([base.image, base.args]).encode()).hexdigest()[:32]
