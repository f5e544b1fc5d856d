"""The pod that scores: KubernetesPodOperator with a pod's sensible defaults, and a last look at how it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import OnKillAction
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import ApiException
from kubernetes.client import models as k8s
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from clip_operator.errors import Cancelled, RequestError
from clip_operator.operators.execution.pod_settings import PodSettings
from clip_operator.request import EvaluationRequest

if TYPE_CHECKING:
    from airflow.sdk import Context

# Kubernetes' own default, and where the command line is told to leave the error that ends it.
TERMINATION_LOG = "/dev/termination-log"

# Linux takes no single argument or environment variable longer than this, its final NUL included (MAX_ARG_STRLEN).
_ARGUMENT_BYTES = 128 << 10

_GPU = "nvidia.com/gpu"
# From SIGTERM to SIGKILL: time to finish a batch and to write down what is done.
_GRACE_SECONDS = 120
# What a scorer writes to: shared memory for worker processes, whose default of 64 MiB is too small for images;
# checkpoints; and the step on its way in and out. The root file system is read-only.
_SCRATCH = {"/dev/shm": "clip-shm", "/cache": "clip-cache", "/tmp": "clip-tmp"}  # noqa: S108 - the pod's own
_SHARED_MEMORY = "1Gi"
_SECRET_NAME = re.compile(r"(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY)$", re.IGNORECASE)
_LOGS_KEPT = timedelta(days=7)  # after which nobody expects a deferred task to come back for them


class ScoringPod(KubernetesPodOperator):
    """Run one request in a pod, within another operator's ``execute``. Made by :func:`scoring_pod`.

    Use ``execute_sync``, ``execute_async`` and ``trigger_reentry``, which say nothing reliable of success: whatever
    they do, ``last_seen`` and the manifest in the store tell what became of the pod.

    :param gpus: how many NVIDIA GPUs it gets.
    :param kwargs: KubernetesPodOperator's.
    """

    def __init__(self, *, gpus: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._gpus = gpus
        self.last_seen: k8s.V1Pod | None = None

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> k8s.V1Pod:
        """Return the pod to create: what the user said, and defaults where neither he nor his template says anything.

        :raises RequestError: what the user said does not make a pod.
        """
        try:
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
            container = next((c for c in pod.spec.containers if c.name == self.base_container_name), None)
            if container is None or not container.image:
                raise RequestError("pod needs an image: pod={'image': …}, or one in its template")
            _check_no_secret(pod)
            _add_labels(pod)
            _add_gpu(pod, container, self._gpus)
            _add_scratch(pod, container)
            _add_security(pod, container)
        except (ValueError, TypeError, AttributeError, OSError, AirflowException) as error:
            raise RequestError(f"pod: {error}") from None
        if pod.spec.termination_grace_period_seconds is None:
            pod.spec.termination_grace_period_seconds = _GRACE_SECONDS
        return pod

    def await_pod_start(self, pod: k8s.V1Pod) -> None:
        """Wait until the pod runs.

        :raises Cancelled: the task was killed while the pod was being created, when there was nothing to delete yet.
        """
        if self._killed:
            self.on_kill()
            raise Cancelled("stopped before the pod ran")
        super().await_pod_start(pod)

    def delete_as_killed(self, name: str, namespace: str) -> None:
        """Delete a pod because its task was killed, unless that is to leave it; it may be gone already."""
        if self.on_kill_action != OnKillAction.KEEP_POD:
            self.pod_manager.delete_pod(k8s.V1Pod(metadata=k8s.V1ObjectMeta(name=name, namespace=namespace)))

    def cleanup(
        self,
        pod: k8s.V1Pod | None,
        remote_pod: k8s.V1Pod | None,
        xcom_result: dict[str, Any] | None = None,
        context: Context | None = None,
    ) -> None:
        """Keep what the pod's end looks like, then delete the pod if that is asked for."""
        # What KubernetesPodOperator hands in may be the pod as it was when it was created, or nothing where its search
        # by labels failed, and then the pod would stay.
        self.last_seen = self._look(pod, otherwise=remote_pod)
        with suppress(AirflowException):  # "returned a failure", in place of what really happened
            super().cleanup(pod, self.last_seen, xcom_result, context)

    def _look(self, pod: k8s.V1Pod | None, otherwise: k8s.V1Pod | None) -> k8s.V1Pod | None:
        """Return the pod as it is now, None if it is gone, and ``otherwise`` if that cannot be told."""
        if pod is None:  # it could not even be described
            return None
        try:
            return self.pod_manager.read_pod(pod)
        except ApiException as error:
            if error.status == 404:
                return None
            self.log.warning("The pod %s cannot be looked at: %s %s", pod.metadata.name, error.status, error.reason)
        except (HTTPError, ConfigException, AirflowException) as error:
            self.log.warning("The pod %s cannot be looked at: %s", pod.metadata.name, error)
        return otherwise

    def _levelled_logs(self, pod: k8s.V1Pod, follow: bool = False, since_time: Any = None) -> None:
        self.pod_manager.fetch_container_logs(
            pod,
            self.base_container_name,
            follow=follow,
            since_time=since_time,
            post_termination_timeout=int(_LOGS_KEPT.total_seconds()),
            container_name_log_prefix_enabled=self.container_name_log_prefix_enabled,
            log_formatter=self.log_formatter,
        )

    # What KubernetesPodOperator reads the rest of the log with after a deferral; its own makes all of it information.
    _write_logs: Any = _levelled_logs


def scoring_pod(
    settings: PodSettings,
    request: EvaluationRequest,
    task_id: str,
    execution_timeout: timedelta | None = None,
    kept_by_trigger: Mapping[str, Any] | None = None,
) -> ScoringPod:
    """Return what runs ``request`` in a pod.

    :param settings: what the user says of the pod.
    :param task_id: the task that runs it.
    :param execution_timeout: the task's, so that the triggerer keeps it too.
    :param kept_by_trigger: what the trigger's event is to hold beside its own.
    :raises RequestError: the settings do not make a pod, or the request does not fit into one.
    """
    if settings.gpus and not request.device:
        # Without its GPU the pod is to fail, and not to crawl on the CPU at a GPU's price.
        request = request.model_copy(update={"device": "cuda"})
    arguments = dict(settings.arguments)
    try:
        arguments["trigger_kwargs"] = {**arguments.get("trigger_kwargs", {}), **(kept_by_trigger or {})}
        if "name" in arguments:
            arguments["name"] = re.sub(r"[^a-z0-9-]+", "-", arguments["name"].lower()).strip("-")
        return ScoringPod(
            task_id=task_id,
            execution_timeout=execution_timeout,
            gpus=settings.gpus,
            cmds=["python", "-m", "clip_operator"],
            arguments=_command_line(request),
            do_xcom_push=False,
            **arguments,
        )
    except (ValueError, TypeError, AttributeError, AirflowException) as error:
        raise RequestError(f"pod: {error}") from None


def _command_line(request: EvaluationRequest) -> list[str]:
    # Kubernetes replaces $(NAME) in arguments; in JSON a dollar can be written so that there is none.
    text = request.model_dump_json().replace("$", r"\u0024")
    size = len(text.encode()) + 1
    if size > _ARGUMENT_BYTES:
        longest = max(request.model_dump(mode="json").items(), key=lambda item: len(str(item[1])))[0]
        raise RequestError(
            f"the request takes {size:,} bytes and must reach the pod as one argument, of {_ARGUMENT_BYTES:,} at most; "
            f"most of it is {longest}"
        )
    return ["evaluate", "--quiet", "--termination-log", TERMINATION_LOG, "--request-json", text]


def _check_no_secret(pod: k8s.V1Pod) -> None:
    for container in [*pod.spec.containers, *(pod.spec.init_containers or [])]:
        for variable in container.env or []:
            if variable.value and _SECRET_NAME.search(variable.name):
                raise RequestError(
                    f"pod: the environment variable {variable.name} would stand in the pod's specification for all to "
                    "read. Use a service account, or pod={'secrets': …} or 'env_from' with a Kubernetes Secret"
                )


def _add_labels(pod: k8s.V1Pod) -> None:
    ours = {"app.kubernetes.io/name": "clip-operator", "app.kubernetes.io/managed-by": "airflow"}
    pod.metadata.labels = {**ours, **(pod.metadata.labels or {})}


def _add_gpu(pod: k8s.V1Pod, container: k8s.V1Container, gpus: int) -> None:
    if not gpus:
        return
    resources = container.resources = container.resources or k8s.V1ResourceRequirements()
    asked = (resources.limits or {}).get(_GPU)
    if asked is not None and str(asked) != str(gpus):
        raise RequestError(f"gpus={gpus}, but pod's container_resources ask for {asked} {_GPU}")
    resources.limits = {**(resources.limits or {}), _GPU: str(gpus)}
    tolerations = pod.spec.tolerations = pod.spec.tolerations or []
    if not any(toleration.key == _GPU for toleration in tolerations):
        # Nodes with GPUs are commonly tainted, so that only pods that use one are placed there.
        tolerations.append(k8s.V1Toleration(key=_GPU, operator="Exists", effect="NoSchedule"))


def _add_scratch(pod: k8s.V1Pod, container: k8s.V1Container) -> None:
    mounts = container.volume_mounts = container.volume_mounts or []
    volumes = pod.spec.volumes = pod.spec.volumes or []
    taken = {mount.mount_path.rstrip("/") for mount in mounts}
    for path, name in _SCRATCH.items():
        if path not in taken:
            in_memory = {"medium": "Memory", "size_limit": _SHARED_MEMORY} if name == "clip-shm" else {}
            empty = k8s.V1EmptyDirVolumeSource(**in_memory)
            volumes.append(k8s.V1Volume(name=name, empty_dir=empty))
            mounts.append(k8s.V1VolumeMount(name=name, mount_path=path))


def _add_security(pod: k8s.V1Pod, container: k8s.V1Container) -> None:
    """Ask for no more than the scorer needs, which is what the "restricted" pod security standard admits."""
    if not pod.spec.security_context:
        pod.spec.security_context = k8s.V1PodSecurityContext(
            run_as_non_root=True, seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault")
        )
    if not container.security_context:
        container.security_context = k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        )
    if pod.spec.automount_service_account_token is None:
        # The scorer never speaks to Kubernetes. Cloud identities (IRSA, workload identity) bring tokens of their own.
        pod.spec.automount_service_account_token = False
