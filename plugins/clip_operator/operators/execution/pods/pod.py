"""The pod that scores: what KubernetesPodOperator builds, with defaults that suit a scorer."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import models as k8s

from clip_operator.errors import RequestError
from clip_operator.operators.execution.pods.defaults import add_defaults
from clip_operator.operators.execution.pods.limits import check_pod
from clip_operator.operators.execution.pods.secrets import check_no_secret
from clip_operator.operators.execution.pods.settings import PodSettings
from clip_operator.operators.limits import NO_LIMITS, Limits
from clip_operator.operators.where import NO_IMAGE
from clip_operator.request import EvaluationRequest

if TYPE_CHECKING:
    from airflow.sdk import Context

# Kubernetes' own default, and where the command line is told to leave the error that ends it.
TERMINATION_LOG = "/dev/termination-log"

# Linux takes no single argument or environment variable longer than this, its final NUL included (MAX_ARG_STRLEN).
_ARGUMENT_BYTES = 128 << 10


class ScoringPod(KubernetesPodOperator):
    """Builds the pod that runs one request, and knows what the user says of it. Made by :func:`scoring_pod`.

    It is never executed: what KubernetesPodOperator does with a pod is done by
    :class:`~clip_operator.operators.execution.pods.held.HeldPod`, which takes no trouble in watching for the pod's end.

    :param gpus: how many NVIDIA GPUs it gets.
    :param limits: what it may be made of.
    :param kwargs: KubernetesPodOperator's.
    """

    def __init__(self, *, gpus: int = 0, limits: Limits = NO_LIMITS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._gpus = gpus
        self._limits = limits

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> k8s.V1Pod:
        """Return the pod to create: what the user said, and defaults where neither he nor his template says anything.

        :raises RequestError: what the user said does not make a pod, or one outside the limits.
        """
        try:
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
            container = next((c for c in pod.spec.containers if c.name == self.base_container_name), None)
            if container is None or not container.image:
                raise RequestError(NO_IMAGE)
            check_no_secret(pod, self.arguments[-1])
            add_defaults(pod, container, self._gpus)
        except (ValueError, TypeError, AttributeError, OSError, AirflowException) as error:
            raise RequestError(f"pod: {error}") from None
        check_pod(pod, self._limits)
        return pod

    @property
    def config_dict(self) -> dict[str, Any] | None:
        """What the kubeconfig that it is to use says, if it is to use one: the triggerer may not have the file."""
        self.convert_config_file_to_dict()  # type: ignore[no-untyped-call]
        config: dict[str, Any] | None = self._config_dict
        return config


def scoring_pod(
    settings: PodSettings,
    request: EvaluationRequest,
    task_id: str,
    execution_timeout: timedelta | None = None,
) -> ScoringPod:
    """Return what runs ``request`` in a pod.

    :param settings: what the user says of the pod.
    :param task_id: the task that runs it.
    :param execution_timeout: the task's, so that the triggerer keeps it too.
    :raises RequestError: the settings do not make a pod, or the request does not fit into one.
    """
    if settings.gpus and not request.device:
        # Without its GPU the pod is to fail, and not to crawl on the CPU at a GPU's price.
        request = request.model_copy(update={"device": "cuda"})
    arguments = dict(settings.arguments)
    try:
        arguments["trigger_kwargs"] = dict(arguments.get("trigger_kwargs", {}))
        if "name" in arguments:
            arguments["name"] = re.sub(r"[^a-z0-9-]+", "-", arguments["name"].lower()).strip("-")
        return ScoringPod(
            task_id=task_id,
            execution_timeout=execution_timeout,
            gpus=settings.gpus,
            limits=settings.limits,
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
    # The operator judges the manifest itself, when the pod is done.
    return ["evaluate", "--quiet", "--ignore-gates", "--termination-log", TERMINATION_LOG, "--request-json", text]
