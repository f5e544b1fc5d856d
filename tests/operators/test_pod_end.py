"""Why a pod did not do its work: the words for each state that Kubernetes shows of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import ApiException
from kubernetes.client import models as k8s

from clip_operator.errors import ClipOperatorError, RequestError
from clip_operator.operators.execution.pods.end import End, explain
from clip_operator.operators.execution.pods.reading import Stage, stage
from clip_operator.operators.execution.pods.watch import Sight
from clip_operator.request import EvaluationRequest

REQUEST = EvaluationRequest(input="in.jsonl", output="s3://b/out.jsonl", batch_size=512)


def pod(status: Mapping[str, Any]) -> k8s.V1Pod:
    manifest = {
        "metadata": {"name": "score-1"},
        "spec": {"containers": [{"name": "base"}], "initContainers": [{"name": "fetch"}]},
        "status": status,
    }
    return PodGenerator.deserialize_model_dict(manifest)


def state(container: str, **state: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": container, "image": "clip:1", "imageID": "", "ready": False, "restartCount": 0, "state": state}


def ended(container: str = "base", **how: Any) -> dict[str, Any]:
    return state(container, terminated=how)


def waiting(container: str = "base", **why: Any) -> dict[str, Any]:
    return state(container, waiting=why)


SIGKILL: dict[str, Any] = {"exitCode": 137, "reason": "Error"}
ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "killed": (
        {"phase": "Failed", "containerStatuses": [ended(**SIGKILL)]},
        "the pod score-1 was killed by SIGKILL: by its node, or because it ran out of memory. Give it more memory in "
        "pod['container_resources'], or try a batch_size smaller than 512",
    ),
    "out of memory without a limit": (
        {"phase": "Failed", "containerStatuses": [ended(exitCode=137, reason="OOMKilled")]},
        "the pod score-1 ran out of memory and was killed (OOMKilled). Give it more memory in "
        "pod['container_resources'], or try a batch_size smaller than 512",
    ),
    "preempted": (
        {
            "phase": "Failed",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "PreemptionByScheduler",
                    "message": "made room",
                },
            ],
            "containerStatuses": [ended(**SIGKILL)],
        },
        "the pod score-1 was disrupted (PreemptionByScheduler): made room. Another try goes on behind the "
        "last resume point",
    ),
    "a disruption that did not come": (
        {
            "phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "False", "reason": "Never", "message": "mind"}],
            "containerStatuses": [ended(exitCode=1, message="ERROR: its own")],
        },
        "its own",
    ),
    "a deadline": (
        {"phase": "Failed", "reason": "DeadlineExceeded", "message": "Too long.", "containerStatuses": []},
        "the pod score-1 was ended by its deadline. Too long.",
    ),
    "a reason nobody foresaw": (
        {"phase": "Failed", "reason": "NodeAffinity"},
        "the pod score-1 was ended: NodeAffinity.",
    ),
    "the error before a library's last words": (
        {"phase": "Failed", "containerStatuses": [ended(exitCode=1, message="INFO: a\nERROR: its own\nbye\n\n")]},
        "its own",
    ),
    "a crash": (
        {
            "phase": "Failed",
            "containerStatuses": [ended(exitCode=1, message="Traceback (most recent call last):\n  …\nKeyError: 3\n")],
        },
        "KeyError: 3",
    ),
    "no message": (
        {"phase": "Failed", "containerStatuses": [ended(exitCode=3)]},
        "the pod score-1 ended with exit code 3 and no message",
    ),
    "an init container": (
        {
            "phase": "Failed",
            "initContainerStatuses": [ended("fetch", exitCode=4, message="no such model\n")],
            "containerStatuses": [waiting(reason="PodInitializing")],
        },
        "the init container 'fetch' ended with exit code 4: no such model",
    ),
    "nothing known": ({"phase": "Pending"}, "the pod score-1 was waiting when watching it ended: too late"),
}


def end_of(status: Mapping[str, Any], trouble: Exception | None = None, **more: Any) -> End:
    seen = pod(status)
    return End("score-1", "base", Sight(seen, stage(seen, "base")), trouble=trouble, **more)


@pytest.mark.parametrize("case", ENDS)
def test_a_pods_end_is_told_in_these_words_and_another_try_may_help(case: str) -> None:
    status, words = ENDS[case]
    reason = explain(end_of(status, RuntimeError("too late")), REQUEST)
    assert str(reason) == words
    assert not isinstance(reason, RequestError)


def test_a_batch_size_that_was_not_chosen_is_not_called_too_large() -> None:
    told = explain(end_of(ENDS["killed"][0]), REQUEST.model_copy(update={"batch_size": "auto"}))
    assert str(told).endswith("Give it more memory in pod['container_resources']")


def test_only_a_request_that_the_pod_calls_wrong_is_not_tried_again() -> None:
    ends = {code: {"containerStatuses": [ended(exitCode=code, message="ERROR: no")]} for code in (1, 2, 3)}
    reasons = {code: explain(end_of(end), REQUEST) for code, end in ends.items()}
    assert [code for code, reason in reasons.items() if isinstance(reason, RequestError)] == [2]


def test_of_a_pod_that_is_gone_its_last_telling_events_are_told() -> None:
    told = [("Scheduled", "to n"), ("Preempted", "by ml/other on node n"), ("Killing", "Stopping container base")]
    events = [k8s.CoreV1Event(metadata={}, involved_object={}, reason=r, message=m) for r, m in told]
    reason = explain(End("score-1", "base", Sight(None, None), events), REQUEST)
    assert str(reason) == (
        "the pod score-1 is gone and has left no manifest: Preempted: by ml/other on node n; Killing: Stopping "
        "container base. Another try goes on behind the last resume point"
    )


def never_made(status: int, message: str) -> ClipOperatorError:
    trouble = ApiException(status=status, reason="No")
    trouble.body = json.dumps({"kind": "Status", "message": message})
    return explain(End(None, "base", Sight(None, Stage.WAITING), trouble=trouble), REQUEST)


def test_what_kubernetes_would_refuse_again_is_not_tried_again_and_all_else_is() -> None:
    reasons = {status: never_made(status, "its own words") for status in (400, 401, 403, 404, 409, 422, 429, 500, 503)}
    assert {str(reason) for reason in reasons.values()} == {"Kubernetes' API refused: its own words"}
    assert [status for status, reason in reasons.items() if isinstance(reason, RequestError)] == [400, 422]


def test_what_is_wrong_on_the_way_to_kubernetes_is_told_in_its_words() -> None:
    plugin = explain(
        End(None, "base", Sight(None, Stage.WAITING), trouble=RuntimeError("exec: aws: not found")), REQUEST
    )
    assert str(plugin) == "the pod could not be run: exec: aws: not found"
