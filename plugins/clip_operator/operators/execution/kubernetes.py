"""Scoring in a Kubernetes pod. Whatever becomes of the pod, the manifest in the store decides how the task ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from clip_operator.errors import Cancelled, ClipOperatorError, JobError
from clip_operator.operators.execution.pods.end import End, explain
from clip_operator.operators.execution.pods.held import HeldPod
from clip_operator.operators.execution.pods.pod import scoring_pod
from clip_operator.operators.execution.pods.reading import Stage, describe_trouble, has_succeeded
from clip_operator.operators.execution.pods.settings import PodSettings
from clip_operator.operators.execution.pods.watch import Sight
from clip_operator.operators.work import Work
from clip_operator.preflight import check_before_pod
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.steps import manifest_uri
from clip_operator.storage import Storage, StorageError, display, scheme_of

if TYPE_CHECKING:
    from airflow.sdk import Context
    from kubernetes.client import models as k8s

log = logging.getLogger(__name__)

# The trigger hands what it is given to keep back in its event. What a deferral itself keeps would do too, but for
# `airflow dags test`, which loses it.
_KEPT = "clip_operator"

# Behind the moment at which the trigger tells that the task's time is up, Airflow's own end of a deferral.
_SECONDS_TO_TELL = 60


class KubernetesPod:
    """Run a request in a pod, waiting for it here or, if deferrable, in the triggerer.

    The run is a success if, when the pod has ended, there is a manifest that was not there before, that answers this
    request, and that is this task instance's. Nothing else counts: a pod may be deleted, evicted, watched by two tries,
    or gone before anyone looks, after it did its work or before.

    :param settings: what the user says of the pod.
    :param storage: where the manifest is read. The pod reaches the store with credentials of its own.
    :param context: the running task's.
    """

    def __init__(self, settings: PodSettings, storage: Storage, context: Context) -> None:
        self._settings = settings
        self._storage = storage
        self._context = context
        self._held: HeldPod | None = None
        self._stop = threading.Event()

    def run(self, work: Work) -> EvaluationManifest:
        """Check what can be checked without a pod, and run the pod.

        :raises TaskDeferred: the triggerer is to wait; :meth:`resume` then goes on.
        """
        request = work.request
        if scheme_of(request.output) == "file":
            log.warning("%s is a local path: it must be the same place for the pod and for this worker", request.output)
        before = self._manifest_etag(request)
        if request.shard is None and not self._stop.is_set():  # of shards the plan has checked the whole
            check_before_pod(request, self._storage, self._stop)
        if self._stop.is_set():
            raise Cancelled("stopped before there was a pod")
        return self._follow(work, before, HeldPod.open)

    @staticmethod
    def planned(event: Mapping[str, Any]) -> Work:
        """Return the work that :meth:`run` was given.

        :param event: what the triggerer saw, and what :meth:`run` gave it to keep.
        """
        kept = event[_KEPT]
        return Work(parse_request(kept["request"]), kept["output_step"], kept.get("shard_label"))

    def resume(self, event: Mapping[str, Any]) -> EvaluationManifest:
        """Go on where the triggerer left off.

        :param event: as for :meth:`planned`.
        :raises TaskDeferred: as :meth:`run`.
        """
        work, kept = self.planned(event), event[_KEPT]

        def take_back(held: HeldPod) -> None:
            held.return_to(event["name"], event["namespace"], _sight(event), kept.get("log") or {})

        return self._follow(work, kept["manifest_before"], take_back, overdue=event["status"] == "timeout")

    def stop(self) -> None:
        self._stop.set()
        if self._held is not None:
            self._held.kill()

    def _follow(
        self, work: Work, before: str | None, begin: Callable[[HeldPod], None], *, overdue: bool = False
    ) -> EvaluationManifest:
        """Have a pod and wait for its end; return the manifest that it wrote, or raise why there is none.

        :param before: the version of the manifest before there was a pod.
        :param begin: makes the pod, or finds it again.
        :param overdue: the task's time is up, and the pod is to end now.
        """
        request = work.request
        held = self._held = self._hold(request)
        trouble: Exception | None = None
        try:
            begin(held)
            if overdue:
                held.kill()
            else:
                if not held.sight.last:
                    self._wait(held, work, before)
                held.end()
        except (TaskDeferred, ClipOperatorError):
            if not self._stop.is_set():
                raise
        except Exception as error:  # of Kubernetes' client, or of what the user has called back
            trouble = error
        if self._stop.is_set():
            held.kill()  # it may have been found only now
            raise Cancelled("stopped before the pod ended")
        return self._concluded(held, request, before, partial(held.end_of, trouble, overdue=overdue), trouble)

    def _hold(self, request: EvaluationRequest) -> HeldPod:
        task = self._context["task"]
        operator = scoring_pod(self._settings, request, task.task_id, task.execution_timeout)
        return HeldPod(operator, self._context, self._settings.max_api_outage_seconds, self._stop)

    def _wait(self, held: HeldPod, work: Work, before: str | None) -> None:
        """Wait until the pod has ended or has done its work.

        :raises TaskDeferred: the triggerer is to wait.
        """

        def has_done() -> bool:
            return self._proved(work.request, before, held.pod)

        if not self._settings.deferrable:
            held.watch(has_done)
        elif held.sight.silent_since is None or not has_done():
            raise self._deferral(held, work, before)

    def _deferral(self, held: HeldPod, work: Work, before: str | None) -> TaskDeferred:
        ti, limit = self._context["ti"], self._context["task"].execution_timeout
        deadline = None if limit is None else ti.start_date.timestamp() + limit.total_seconds()
        kept = {
            "request": work.request.model_dump(mode="json"),
            "output_step": work.output_step,
            "shard_label": work.shard_label,
            "manifest_before": before,
            "log": held.log_position(),
        }
        timeout = None
        if deadline is not None:
            timeout = timedelta(seconds=max(deadline - time.time(), 0) + _SECONDS_TO_TELL)
        trigger = held.trigger(deadline, {_KEPT: kept})
        return TaskDeferred(trigger=trigger, method_name="trigger_reentry", timeout=timeout)

    def _concluded(
        self,
        held: HeldPod,
        request: EvaluationRequest,
        before: str | None,
        end: Callable[[], End],
        trouble: Exception | None,
    ) -> EvaluationManifest:
        """Return the manifest that makes the run a success, or raise why it is none."""
        try:
            manifest, is_new = self._manifest(request, before, held.pod)
        except StorageError as error:
            raise JobError(
                f"whether the pod did its work cannot be told, because the manifest cannot be read: {error}. "
                + _besides(end(), request)
            ) from None
        if manifest is None or not is_new:
            raise explain(end(), request)
        if not manifest.answers(request):
            raise JobError(
                f"the manifest beside {display(request.output)} answers another request than this task's. "
                + _besides(end(), request)
            )
        if trouble is not None:
            log.warning("The pod's work is done and proved, although watching it failed: %s", describe_trouble(trouble))
        if held.sight.silent_since is not None:
            held.put_away()
        rows = f"{manifest.rows.scored:,} of {manifest.rows.total:,} rows"
        log.info("%s have a score, as %s proves", rows, display(manifest_uri(request.output)))
        return manifest

    def _proved(self, request: EvaluationRequest, before: str | None, pod: k8s.V1Pod | None) -> bool:
        """Tell whether there is a manifest that makes the run a success, as far as that can be told now."""
        try:
            manifest, is_new = self._manifest(request, before, pod)
        except StorageError as error:
            log.warning("Whether the pod did its work cannot be told: %s", error)
            return False
        return is_new and manifest is not None and manifest.answers(request)

    def _manifest(
        self, request: EvaluationRequest, before: str | None, pod: k8s.V1Pod | None
    ) -> tuple[EvaluationManifest | None, bool]:
        """Return the manifest of the output, if there is one, and whether it was written since the pod was there."""
        etag = self._manifest_etag(request)
        manifest = proof(self._storage, request.output)
        return manifest, manifest is not None and (etag != before or _written_by(pod, manifest))

    def _manifest_etag(self, request: EvaluationRequest) -> str | None:
        info = self._storage.find(manifest_uri(request.output))
        return info.etag if info is not None else None


def _besides(end: End, request: EvaluationRequest) -> str:
    pod = end.sight.pod
    ended_well = pod is not None and has_succeeded(pod, end.container)
    return "The pod itself ended well" if ended_well else f"Of the pod itself: {explain(end, request)}"


def _sight(event: Mapping[str, Any]) -> Sight:
    """Return what the triggerer saw last; one of an older version of the package says less of it."""
    at = event.get("stage", Stage.WAITING.value)
    return Sight(
        pod=None,
        stage=None if at is None else Stage(at),
        stuck=event.get("stuck"),
        silent_since=event.get("silent_since"),
        silence=event.get("silence", ""),
        given_up=event.get("given_up", False),
    )


def _written_by(pod: k8s.V1Pod | None, manifest: EvaluationManifest) -> bool:
    """Tell whether the manifest was written after the pod was started. Both times are of the pod's node."""
    started = pod and pod.status and pod.status.start_time
    return started is not None and manifest.published_at >= started
