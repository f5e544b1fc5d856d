"""Scoring in a Kubernetes pod. Whatever becomes of the pod, the manifest in the store decides how the task ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from clip_operator.errors import Cancelled, ClipOperatorError, JobError
from clip_operator.operators.execution.pod import ScoringPod, scoring_pod
from clip_operator.operators.execution.pod_end import describe_trouble, explain
from clip_operator.operators.execution.pod_settings import PodSettings
from clip_operator.operators.work import Work
from clip_operator.preflight import check_before_pod
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.steps import manifest_uri
from clip_operator.storage import Storage, StorageError, display, scheme_of

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# The trigger hands what it is given to keep back in its event. What a deferral itself keeps would do too, but for
# `airflow dags test`, which loses it.
_KEPT = "clip_operator"


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
        self._pod: ScoringPod | None = None
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
        pod = self._make_pod(work, before)
        start = pod.execute_async if self._settings.deferrable else pod.execute_sync
        return self._watched(lambda: start(self._context), pod, request, before)

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
        work, before = self.planned(event), event[_KEPT]["manifest_before"]
        pod = self._make_pod(work, before)
        try:
            return self._watched(lambda: pod.trigger_reentry(self._context, dict(event)), pod, work.request, before)
        except Cancelled:
            # What was killed before it looked for its pod could not delete it.
            pod.delete_as_killed(event["name"], event["namespace"])
            raise

    def stop(self) -> None:
        self._stop.set()
        if self._pod is not None:
            self._pod.on_kill()

    def _make_pod(self, work: Work, before: str | None) -> ScoringPod:
        task = self._context["task"]
        kept = {
            "request": work.request.model_dump(mode="json"),
            "output_step": work.output_step,
            "shard_label": work.shard_label,
            "manifest_before": before,
        }
        self._pod = scoring_pod(self._settings, work.request, task.task_id, task.execution_timeout, {_KEPT: kept})
        return self._pod

    def _watched(
        self, watch: Callable[[], object], pod: ScoringPod, request: EvaluationRequest, before: str | None
    ) -> EvaluationManifest:
        """Watch the pod to its end; return the manifest that it wrote, or raise why there is none."""
        trouble: Exception | None = None
        try:
            if not self._stop.is_set():  # before there was a pod
                watch()
        except TaskDeferred:
            if not self._stop.is_set():
                raise
            pod.on_kill()  # stopped while the pod was being created, when there was nothing to delete yet
        except ClipOperatorError:
            raise
        except Exception as error:  # KubernetesPodOperator's many ways to say that something is wrong
            trouble = error
        if self._stop.is_set():
            raise Cancelled("stopped before the pod ended")
        manifest = self._own_manifest(pod, request, before, trouble)
        if trouble is not None:
            log.warning("The pod's work is done and proved, although watching it failed: %s", describe_trouble(trouble))
        rows = f"{manifest.rows.scored:,} of {manifest.rows.total:,} rows"
        log.info("%s have a score, as %s proves", rows, display(manifest_uri(request.output)))
        return manifest

    def _manifest_etag(self, request: EvaluationRequest) -> str | None:
        info = self._storage.find(manifest_uri(request.output))
        return info.etag if info is not None else None

    def _own_manifest(
        self, pod: ScoringPod, request: EvaluationRequest, before: str | None, trouble: Exception | None
    ) -> EvaluationManifest:
        """Return the manifest that makes the run a success, or raise why it is none."""
        try:
            etag = self._manifest_etag(request)
            manifest = proof(self._storage, request.output)
        except StorageError as error:
            reason = explain(pod.last_seen, pod.base_container_name, trouble, request)
            raise JobError(
                f"whether the pod did its work cannot be told, because the manifest cannot be read: {error}. "
                + _besides(pod, reason)
            ) from None
        if manifest is None or (etag == before and not _written_by(pod, manifest)):
            raise explain(pod.last_seen, pod.base_container_name, trouble, request)
        if not manifest.answers(request):
            reason = explain(pod.last_seen, pod.base_container_name, trouble, request)
            raise JobError(
                f"the manifest beside {display(request.output)} answers another request than this task's. "
                + _besides(pod, reason)
            )
        return manifest


def _besides(pod: ScoringPod, reason: ClipOperatorError) -> str:
    ended_well = pod.last_seen is not None and pod.last_seen.status.phase == "Succeeded"
    return "The pod itself ended well" if ended_well else f"Of the pod itself: {reason}"


def _written_by(pod: ScoringPod, manifest: EvaluationManifest) -> bool:
    """Tell whether the manifest was written after the pod was started. Both times are of the pod's node."""
    started = pod.last_seen and pod.last_seen.status.start_time
    return started is not None and manifest.published_at >= started
