"""What watches the pod of a deferred task, in the triggerer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import ClientError
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.providers.cncf.kubernetes.utils.pod_manager import OnKillAction
from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from kubernetes_asyncio.client import ApiException, CoreV1Api, V1DeleteOptions, V1Preconditions
from kubernetes_asyncio.config import ConfigException

from clip_operator.operators.execution.pods.cluster import in_order
from clip_operator.operators.execution.pods.reading import (
    TIMEOUT,
    NotTold,
    PodGone,
    Stage,
    describe_trouble,
    problem_of,
    watched_by,
)
from clip_operator.operators.execution.pods.watch import Patience, Sight, sights

if TYPE_CHECKING:
    from kubernetes.client import models as k8s

    from clip_operator.operators.execution.pods.pod import ScoringPod

# Where Kubernetes' API has not told for so long, the worker looks into the store whether the work is done: a minute
# later, and then every five.
_SECONDS_TO_LOOK_INTO_THE_STORE = (60, 300)
_SECONDS_TO_ANSWER = TIMEOUT[1]
_ATTEMPTS_AT_A_CHANGING_POD = 10

# What the client and the way to it raise.
_TROUBLES = (ApiException, ClientError, OSError, ConfigException, AirflowException)


class PodTrigger(KubernetesPodTrigger):
    """Watches a pod until there is something for a worker to do: it has ended, or there is more of its log.

    What is KubernetesPodTrigger's own is the way to the cluster, and how Airflow tells that the task was killed.

    :param patience: the fields of :class:`~clip_operator.operators.execution.pods.watch.Patience`.
    :param number: of the try that watches the pod.
    :param silent_since: since when Kubernetes' API has not told, in seconds since the epoch.
    :param kwargs: KubernetesPodTrigger's.
    """

    def __init__(
        self,
        patience: Mapping[str, Any],
        number: int,
        silent_since: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patience = dict(patience)
        self.number = number
        self.silent_since = silent_since

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer makes this one again with."""
        own = {"patience": self.patience, "number": self.number, "silent_since": self.silent_since}
        return f"{type(self).__module__}.{type(self).__qualname__}", {**super().serialize()[1], **own}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event, for the worker to go on with."""
        event = await self._first_event()
        self._fired_event = True
        yield TriggerEvent(  # type: ignore[no-untyped-call]
            {**event, "name": self.pod_name, "namespace": self.pod_namespace, **self.trigger_kwargs}
        )

    async def _first_event(self) -> dict[str, Any]:
        started = time.time()
        deadline = self.trigger_kwargs.get("_execution_deadline")
        reader, patience = _TriggererReader(self), Patience(**self.patience)
        async for sight in sights(reader, patience, silent_since=self.silent_since):
            seen = {
                "stage": None if sight.stage is None else sight.stage.value,
                "stuck": sight.stuck,
                "silent_since": sight.silent_since,
                "silence": sight.silence,
                "given_up": sight.given_up,
            }
            if sight.last:
                return {"status": "last", **seen}
            now = time.time()
            if deadline is not None and now >= deadline:
                return {"status": "timeout", **seen}
            if self._is_worth_a_worker(sight, now - started, now):
                return {"status": "running", **seen}
        raise AssertionError("a pod is looked at until there is a last look")

    def _is_worth_a_worker(self, sight: Sight, waited: float, now: float) -> bool:
        if sight.silent_since is not None:
            first, next_one = _SECONDS_TO_LOOK_INTO_THE_STORE
            return waited >= next_one or (self.silent_since is None and now - sight.silent_since >= first)
        interval = self.logging_interval if self.get_logs else None
        return sight.stage is Stage.RUNNING and interval is not None and waited >= interval

    async def on_kill(self) -> None:
        """Delete the pod because the task was killed, unless that is to leave it, or a later try watches it."""
        if self._fired_event or self.on_kill_action == OnKillAction.KEEP_POD:
            return
        try:
            for _ in range(_ATTEMPTS_AT_A_CHANGING_POD):
                pod = await _TriggererReader(self).pod()
                if watched_by(pod) > self.number:
                    self.log.info("The pod %s is watched by try %d, and stays", self.pod_name, watched_by(pod))
                    return
                if await self._delete(pod):
                    return
        except PodGone:
            return
        except (NotTold, *_TROUBLES) as error:
            self.log.warning("The pod %s stays until it is deleted by hand: %s", self.pod_name, describe_trouble(error))

    async def cleanup(self) -> None:
        """Do as :meth:`on_kill` with an Airflow before 3.3, which tells a trigger only that it ends, not why."""
        if hasattr(BaseTrigger, "on_kill") or self._fired_event:
            return
        try:
            killed = await self.safe_to_cancel()
        except Exception as error:  # whatever Airflow's API does not tell; a pod too many harms less than one too few
            self.log.warning("Whether the task was killed cannot be told, and its pod is left: %s", error)
            return
        if killed:
            await self.on_kill()

    async def _delete(self, pod: k8s.V1Pod) -> bool:
        """Delete a pod if it is still as it was seen; return whether it was."""
        unchanged = V1Preconditions(uid=pod.metadata.uid, resource_version=pod.metadata.resource_version)
        options = V1DeleteOptions(preconditions=unchanged, grace_period_seconds=self.termination_grace_period)
        try:
            async with self.hook.get_conn() as connection:
                await CoreV1Api(connection).delete_namespaced_pod(
                    self.pod_name, self.pod_namespace, body=options, _request_timeout=_SECONDS_TO_ANSWER
                )
        except ApiException as error:
            if error.status not in (404, 409):
                raise
            return error.status == 404
        self.log.info("Deleted the pod %s, since the task was killed", self.pod_name)
        return True


class _TriggererReader:
    """Reads a trigger's pod."""

    def __init__(self, trigger: PodTrigger) -> None:
        self._trigger = trigger

    async def pod(self) -> k8s.V1Pod:
        trigger = self._trigger
        try:
            async with trigger.hook.get_conn() as connection:
                return await CoreV1Api(connection).read_namespaced_pod(
                    trigger.pod_name, trigger.pod_namespace, _request_timeout=_SECONDS_TO_ANSWER
                )
        except _TROUBLES as error:
            if getattr(error, "status", None) == 401:  # its credentials are no longer taken: they are read anew
                vars(trigger).pop("hook", None)
            raise problem_of(error) from error

    async def events(self) -> Sequence[k8s.CoreV1Event]:
        trigger = self._trigger
        try:
            async with trigger.hook.get_conn() as connection:
                listed = await CoreV1Api(connection).list_namespaced_event(
                    trigger.pod_namespace,
                    field_selector=f"involvedObject.name={trigger.pod_name}",
                    _request_timeout=_SECONDS_TO_ANSWER,
                )
        except _TROUBLES as error:  # they are only told
            trigger.log.debug("the events of the pod cannot be listed: %s", error)
            return ()
        return in_order(listed.items)


def pod_trigger(
    operator: ScoringPod,
    pod: k8s.V1Pod,
    patience: Patience,
    number: int,
    silent_since: float | None,
    deadline: float | None,
    kept: Mapping[str, Any],
) -> PodTrigger:
    """Return the trigger that watches a pod.

    :param operator: knows how the cluster is reached.
    :param number: of the try that watches the pod.
    :param silent_since: since when Kubernetes' API has not told.
    :param deadline: when the task's time is up, in seconds since the epoch.
    :param kept: what the event is to hold beside its own.
    """
    conn_id = operator.kubernetes_conn_id
    own = {} if deadline is None else {"_execution_deadline": deadline}
    return PodTrigger(
        patience=asdict(patience),
        number=number,
        silent_since=silent_since,
        pod_name=pod.metadata.name,
        pod_namespace=pod.metadata.namespace,
        trigger_start_time=datetime.now(UTC),
        base_container_name=operator.base_container_name,
        kubernetes_conn_id=conn_id,
        connection_extras=KubernetesHook.get_connection(conn_id).extra_dejson if conn_id else None,
        config_dict=operator.config_dict,
        cluster_context=operator.cluster_context,
        in_cluster=operator.in_cluster,
        get_logs=operator.get_logs,
        logging_interval=operator.logging_interval,
        on_finish_action=operator.on_finish_action.value,
        on_kill_action=operator.on_kill_action.value,
        termination_grace_period=operator.termination_grace_period,
        trigger_kwargs={**(operator.trigger_kwargs or {}), **own, **kept},
    )
