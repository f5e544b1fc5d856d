"""A pod is watched without harm: through outages, by overlapping tries, beside sidecars, and until its end is told."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from clip_operator.proof.standing import proof
from tests.conftest import S3
from tests.fake_kubernetes import FakeKubernetes
from tests.operators.conftest import Held
from tests.operators.tasks import TaskInstance

Task = Callable[..., TaskInstance]
both_modes = pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "in the triggerer"])


def is_proved(ti: TaskInstance, s3: S3) -> bool:
    manifest = proof(s3.storage, f"{ti.parameters['cache_path']}/captions_step1.jsonl")
    return manifest is not None and ti.requester in manifest.asked_for_by


def phase(cluster: FakeKubernetes, name: str) -> str:
    return str(cluster.pod(name)["status"]["phase"])


def wait_for_requests(cluster: FakeKubernetes, more: int) -> None:
    """Wait until so many more requests have come, as a sign that somebody goes on asking."""
    before = len(cluster.requests)
    cluster.wait_until(lambda seen: len(seen.requests) >= before + more, timeout=60)


def deletions(cluster: FakeKubernetes) -> int:
    return sum(method == "DELETE" for method, _ in cluster.requests)


def watching_try(cluster: FakeKubernetes, name: str) -> str:
    return str(cluster.pod(name)["metadata"]["annotations"]["clip-operator/try"])


@contextmanager
def away(cluster: FakeKubernetes, how: str) -> Iterator[None]:
    with ExitStack() as stack:
        if how == "no answer":
            stack.enter_context(cluster.outage())
        else:
            stack.enter_context(cluster.refusing(None, "", int(how)))
        yield


# ----------------------------------------------------------------------------------------- Kubernetes does not tell


@pytest.mark.every_airflow
@both_modes
@pytest.mark.parametrize("how", ["no answer", "403", "500", "401"])
def test_a_pod_that_ends_while_kubernetes_does_not_tell_is_a_success_and_was_never_to_be_deleted_before(
    task: Task, cluster: FakeKubernetes, s3: S3, held: Held, how: str, deferrable: bool
) -> None:
    ti = task(**held.parameters, deferrable=deferrable)
    running = ti.next_try().start()
    name = cluster.wait_for_log("Row 14 has no score", timeout=60)
    with away(cluster, how):
        wait_for_requests(cluster, 4)
        assert deletions(cluster) == 0
        held.let_go()
        cluster.wait_until(lambda seen: phase(seen, name) == "Succeeded", timeout=60)
    assert running.result(90) == ["clip_score"]
    assert is_proved(ti, s3)
    assert len(cluster.created) == 1


@both_modes
def test_when_kubernetes_has_not_told_for_too_long_the_pod_is_left_and_the_next_try_goes_on_with_it(
    task: Task, cluster: FakeKubernetes, s3: S3, held: Held, deferrable: bool
) -> None:
    ti = task(**held.parameters, deferrable=deferrable, max_api_outage_seconds=1)
    running = ti.next_try().start()
    name = cluster.wait_for_log("Row 14 has no score", timeout=60)
    with cluster.outage(), pytest.raises(AirflowException, match=f"has not told for .* s how the pod {name} fares: .*"):
        running.result(90)
    assert (phase(cluster, name), deletions(cluster)) == ("Running", 0)
    second = ti.next_try().start()
    cluster.wait_until(lambda seen: watching_try(seen, name) == "2")
    held.let_go()
    assert second.result(60) == ["clip_score"]
    assert len(cluster.created) == 1


def test_on_a_worker_the_manifest_tells_that_the_work_is_done_while_kubernetes_does_not(
    task: Task, cluster: FakeKubernetes, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = task(**held.parameters).next_try().start()
    name = cluster.wait_for_log("Row 14 has no score", timeout=60)
    with cluster.refusing(None, "", 503):
        wait_for_requests(cluster, 2)
        held.let_go()
        words = f"The pod {name} has done its work, as the manifest tells while Kubernetes does not"
        cluster.wait_until(lambda _: words in caplog.text, timeout=90)
    assert running.result(60) == ["clip_score"]
    cluster.wait_until(lambda seen: seen.pods() == [])


@pytest.mark.every_airflow
def test_when_the_triggerer_is_not_told_the_manifest_tells_and_the_pod_is_cleared_away(
    task: Task, cluster: FakeKubernetes, s3: S3
) -> None:
    ti = task(deferrable=True)
    first = ti.next_try()
    deferral = first.defer()
    (name,) = cluster.pods()
    cluster.wait_until(lambda seen: phase(seen, name) == "Succeeded", timeout=60)
    kept = deferral.trigger.serialize()[1]["trigger_kwargs"]
    silent = {"stage": "running", "stuck": None, "silent_since": 1.0, "silence": "?", "given_up": False}
    event = {"status": "running", "name": name, "namespace": "default", **silent, **kept}
    assert first.resume(event, deferral) == ["clip_score"]
    assert is_proved(ti, s3)
    assert (len(cluster.created), cluster.pods()) == (1, [])


@both_modes
@pytest.mark.parametrize("how", ["no answer", "403"])
def test_a_try_that_begins_while_kubernetes_does_not_tell_waits_for_it(
    task: Task, cluster: FakeKubernetes, how: str, deferrable: bool
) -> None:
    with away(cluster, how):
        running = task(deferrable=deferrable).next_try().start()
        wait_for_requests(cluster, 2)
    assert running.result(90) == ["clip_score"]
    assert len(cluster.created) == 1


@both_modes
def test_a_log_that_cannot_be_read_harms_nothing(
    task: Task, cluster: FakeKubernetes, s3: S3, deferrable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ti = task(deferrable=deferrable)
    with cluster.refusing("GET", "/log", 500):
        assert ti.next_try().run() == ["clip_score"]
    assert is_proved(ti, s3)
    assert caplog.text.count("The pod's log cannot be read now") == 1


def test_an_answer_to_the_making_of_a_pod_that_is_lost_makes_no_second_one(task: Task, cluster: FakeKubernetes) -> None:
    cluster.lose_answer("POST", "/pods$")
    assert task().next_try().run() == ["clip_score"]
    assert sum(method == "POST" for method, _ in cluster.requests) == 2
    assert len(cluster.created) == 1


# ------------------------------------------------------------------------------------------------- whose a pod is


@pytest.mark.every_airflow
@both_modes
def test_a_pod_that_is_being_deleted_is_nobodys(task: Task, cluster: FakeKubernetes, deferrable: bool) -> None:
    ti = task({"image": "stubborn:1"}, deferrable=deferrable)
    first = ti.next_try()
    running = first.start() if not deferrable else first.defer()
    old = cluster.wait_for_log("Scoring on cpu")
    if isinstance(running, Future):
        first.operator.on_kill()
        with pytest.raises(AirflowException, match="stopped before"):
            running.result(60)
    else:
        asyncio.run(trigger_of(running).on_kill())
    second = ti.next_try()
    again = second.start()
    cluster.wait_until(lambda seen: len(seen.created) == 2)
    assert "deletionTimestamp" in cluster.pod(old)["metadata"]
    (new,) = set(cluster.pods()) - {old}
    assert "deletionTimestamp" not in cluster.pod(new)["metadata"]
    cluster.vanish(new)
    with pytest.raises(AirflowException, match=f"{new} is gone"):
        again.result(60)


def trigger_of(deferral: Any) -> Any:
    path, arguments = deferral.trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments, default=str)))


@pytest.mark.every_airflow
def test_an_old_try_that_is_killed_leaves_the_pod_that_a_later_one_watches(
    task: Task, cluster: FakeKubernetes, held: Held
) -> None:
    ti = task(**held.parameters)
    first = ti.next_try()
    zombie = first.start()
    name = cluster.wait_for_log("Row 14 has no score", timeout=60)
    second = ti.next_try().start()
    cluster.wait_until(lambda seen: watching_try(seen, name) == "2")
    first.operator.on_kill()
    with pytest.raises(AirflowException, match="stopped before"):
        zombie.result(60)
    assert "deletionTimestamp" not in cluster.pod(name)["metadata"]
    held.let_go()
    assert second.result(60) == ["clip_score"]
    assert len(cluster.created) == 1


def test_the_trigger_of_an_old_try_that_is_killed_leaves_the_pod_that_a_later_one_watches(
    task: Task, cluster: FakeKubernetes, held: Held
) -> None:
    ti = task(**held.parameters, deferrable=True)
    old = trigger_of(ti.next_try().defer())
    second = ti.next_try()
    deferral = second.defer()
    (name,) = cluster.pods()
    assert watching_try(cluster, name) == "2"
    asyncio.run(old.on_kill())
    assert "deletionTimestamp" not in cluster.pod(name)["metadata"]
    asyncio.run(trigger_of(deferral).on_kill())
    cluster.wait_until(lambda seen: seen.pods() == [])


def test_a_pod_of_the_same_task_that_was_asked_for_something_else_is_left_alone(
    task: Task, cluster: FakeKubernetes, s3: S3
) -> None:
    ti = task({"image": "endless:1"})
    ti.next_try().start()
    other = cluster.wait_for_log("Scoring on cpu")
    changed = TaskInstance({**ti.parameters, "pod": {**ti.parameters["pod"], "image": "scorer:1"}}, try_number=1)
    assert changed.next_try().run() == ["clip_score"]
    assert phase(cluster, other) == "Running"
    cluster.vanish(other)


# ------------------------------------------------------------------------------------------------ when it has ended


def beside(**container: Any) -> dict[str, Any]:
    return {"name": "mesh", "image": "endless:1", "command": ["python"], **container}


SIDECARS: dict[str, Mapping[str, Any]] = {
    "a second container": {"containers": [{"name": "base"}, beside()]},
    "a native sidecar": {"containers": [{"name": "base"}], "initContainers": [beside(restartPolicy="Always")]},
}


@pytest.mark.every_airflow
@both_modes
@pytest.mark.parametrize("which", SIDECARS)
def test_the_end_of_the_container_that_scores_is_the_end(
    task: Task, cluster: FakeKubernetes, s3: S3, which: str, deferrable: bool
) -> None:
    template = {"apiVersion": "v1", "kind": "Pod", "spec": SIDECARS[which]}
    ti = task({"pod_template_dict": template}, deferrable=deferrable)
    assert ti.next_try().start().result(90) == ["clip_score"]
    assert is_proved(ti, s3)
    cluster.wait_until(lambda seen: seen.pods() == [])


@both_modes
def test_a_pod_that_an_old_kubelet_shows_as_failed_and_its_container_as_running_has_ended(
    task: Task, cluster: FakeKubernetes, deferrable: bool
) -> None:
    cluster.show_deadlines_early()
    ti = task({"image": "stubborn:1", "active_deadline_seconds": 600}, deferrable=deferrable)
    running = ti.next_try().start()
    cluster.end_overdue(cluster.wait_for_log("Scoring on cpu"))
    with pytest.raises(AirflowException, match="was ended by its deadline"):
        running.result(60)


# The condition, or the events where it is gone before anyone looks; an older cluster has no such condition.
DISRUPTIONS = {
    "PreemptionByScheduler": (r"was disrupted \(PreemptionByScheduler\)|Preempted: ", "Preempted: "),
    "DeletionByTaintManager": (r"was disrupted \(DeletionByTaintManager\)|Taint", "TaintManagerEviction: "),
    "EvictionByEvictionAPI": (r"was disrupted \(EvictionByEvictionAPI\)|Killing", "Killing: Stopping container base"),
    "TerminationByKubelet": (
        r"was evicted\. The node was low on resource",
        r"was evicted\. The node was low on resource",
    ),
}


@both_modes
@pytest.mark.parametrize("condition", [True, False], ids=["with the condition", "of an older cluster"])
@pytest.mark.parametrize("reason", DISRUPTIONS)
def test_why_a_pod_had_to_go_is_told(
    task: Task, cluster: FakeKubernetes, reason: str, condition: bool, deferrable: bool
) -> None:
    running = task({"image": "endless:1"}, deferrable=deferrable).next_try().start()
    cluster.disrupt(cluster.wait_for_log("Scoring on cpu"), reason, condition=condition)
    with pytest.raises(AirflowException, match=DISRUPTIONS[reason][not condition]) as failure:
        running.result(60)
    assert not isinstance(failure.value, AirflowFailException)


# ------------------------------------------------------------------------------------------------ before it begins


def test_what_keeps_a_pod_from_starting_and_does_not_mend_itself_ends_the_task_by_name(
    task: Task, cluster: FakeKubernetes
) -> None:
    nowhere = {"name": "settings", "configMap": {"name": "no-such-map"}}
    mount = {"name": "settings", "mountPath": "/settings"}
    obstacles: dict[str, tuple[dict[str, Any], str]] = {
        "a secret": ({"env_from": [{"secretRef": {"name": "no-such"}}]}, r"\(CreateContainerConfigError\): .*no-such"),
        "a volume": ({"volumes": [nowhere], "volume_mounts": [mount]}, r"\(FailedMount\): .*no-such-map"),
        "an image": (
            {"image": "registry.example/scorer:7"},
            r"'registry.example/scorer:7' cannot be pulled .*not found",
        ),
        "a name": ({"image": "Scorer:1"}, r"'Scorer:1' cannot be pulled \(InvalidImageName\)"),
    }
    runs = {
        (which, deferrable): task(pod, deferrable=deferrable).next_try().start()
        for which, (pod, _) in obstacles.items()
        for deferrable in (False, True)
    }
    for (which, _), running in runs.items():
        with pytest.raises(AirflowException, match=obstacles[which][1]):
            running.result(120)
    cluster.wait_until(lambda seen: seen.pods() == [])


@both_modes
def test_a_secret_that_comes_a_little_later_is_waited_for(
    task: Task, cluster: FakeKubernetes, deferrable: bool
) -> None:
    late = [{"secretRef": {"name": "store"}}, {"secretRef": {"name": "late"}}]
    running = task({"env_from": late}, deferrable=deferrable).next_try().start()
    cluster.wait_until(lambda seen: "CreateContainerConfigError" in json.dumps([seen.pod(n) for n in seen.pods()]))
    cluster.secrets["late"] = {"MORE": "1"}
    assert running.result(90) == ["clip_score"]


@both_modes
def test_time_in_a_queue_is_no_time_to_be_scheduled(task: Task, cluster: FakeKubernetes, deferrable: bool) -> None:
    gated = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [], "schedulingGates": [{"name": "queue"}]}}
    settings = {"pod_template_dict": gated, "schedule_timeout_seconds": 1}
    running = task(settings, deferrable=deferrable).next_try().start()
    cluster.wait_until(lambda seen: seen.pods() != [])
    (name,) = cluster.pods()
    wait_for_requests(cluster, 20)  # of which two come each fifth of a second
    cluster.lift_gates(name)
    assert running.result(90) == ["clip_score"]


def test_a_pod_whose_init_container_takes_too_long_did_not_start_in_time(task: Task, cluster: FakeKubernetes) -> None:
    fetch = {"name": "fetch", "image": "endless:1", "command": ["python"]}
    ti = task({"init_containers": [fetch], "startup_timeout_seconds": 1})
    with pytest.raises(AirflowException, match=r"did not start within 1 s \(\w+\)"):
        ti.next_try().run()
    cluster.wait_until(lambda seen: seen.pods() == [])


def test_a_registry_that_is_short_of_breath_is_waited_for(task: Task, cluster: FakeKubernetes) -> None:
    cluster.pull_problems["scorer:1"] = "429 Too Many Requests: rate limit exceeded"
    running = task({"startup_timeout_seconds": 600}).next_try().start()
    cluster.wait_until(lambda seen: "ErrImagePull" in json.dumps([seen.pod(name) for name in seen.pods()]))
    del cluster.pull_problems["scorer:1"]
    assert running.result(90) == ["clip_score"]


def test_a_pod_that_kubernetes_refuses_is_told_of_in_one_line(
    task: Task, cluster: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(AirflowFailException, match="nowhere"):
        task({"volume_mounts": [{"name": "nowhere", "mountPath": "/x"}]}).next_try().run()
    assert "request-json" not in caplog.text


# ------------------------------------------------------------------------------------------------------ what is told


@both_modes
@pytest.mark.parametrize("skew", [-300.0, 300.0])
def test_each_line_of_the_log_is_told_once_whatever_the_nodes_clock_says(
    task: Task, cluster: FakeKubernetes, held: Held, caplog: pytest.LogCaptureFixture, skew: float, deferrable: bool
) -> None:
    caplog.set_level(logging.INFO)
    cluster.clock_skew_seconds = skew
    running = task({"logging_interval": 1}, **held.parameters, deferrable=deferrable).next_try().start()
    name = cluster.wait_for_log("Row 56 has no score", timeout=60)
    cluster.wait_until(lambda seen: sum("/log?" in path for _, path in seen.requests) >= 4, timeout=60)
    held.let_go()
    running.result(90)
    told = [record.getMessage() for record in caplog.records if record.name.endswith("pods.logs")]
    written = [line.partition(": ")[2] for line in cluster.log(name).splitlines()]
    assert told == written


class Recorded(KubernetesPodOperatorCallback):
    """Records which of its methods are called, and for which pod."""

    calls: list[tuple[str, str | None]]


def _record(name: str) -> Any:
    def method(**arguments: Any) -> None:
        pod = arguments.get("pod") or arguments.get("pod_request")
        Recorded.calls.append((name, pod and pod.metadata.name))

    return staticmethod(method)


ORDER = ["on_pod_manifest_created", "on_pod_creation", "on_pod_starting", "progress_callback"]
ORDER += ["on_pod_completion", "on_pod_teardown", "on_pod_cleanup"]
for _name in ORDER:
    setattr(Recorded, _name, _record(_name))


@both_modes
def test_the_users_callbacks_are_called_as_kubernetes_pod_operator_calls_them(
    task: Task, cluster: FakeKubernetes, deferrable: bool
) -> None:
    Recorded.calls = []
    task({"callbacks": Recorded}, deferrable=deferrable).next_try().run()
    names = [name for name, _ in Recorded.calls]
    assert list(dict.fromkeys(names)) == ORDER
    assert {pod for _, pod in Recorded.calls} == {cluster.created[0]["metadata"]["name"]}
    assert all(names.count(name) == 1 for name in ORDER if name != "progress_callback")
