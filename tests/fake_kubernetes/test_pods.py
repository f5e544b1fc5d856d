"""Pods from their creation to their end, as the real client sees them."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api, V1DeleteOptions
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config

from tests.fake_kubernetes import FakeKubernetes, Image, Processes, fake_kubernetes
from tests.fake_kubernetes.manifests import IMAGE, base_state, has_phase, is_gone, pod, waits_with

TRAPS_TERM = "trap 'echo asked to stop; exit 0' TERM; echo ready; sleep 1000 & wait"
IGNORES_TERM = "trap '' TERM; echo ready; sleep 1000"


class Lifeline:
    """A named pipe that tells whether any process still holds its other end."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lifeline"
        os.mkfifo(self.path)
        self._reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def is_cut(self, timeout: float) -> bool:
        """Wait until no process holds it; return whether that came in time."""
        return select.select([self._reader], [], [], timeout)[0] != []


@pytest.fixture
def lifeline(tmp_path: Path) -> Lifeline:
    return Lifeline(tmp_path)


def test_a_pod_runs_to_its_end_and_stays_until_it_is_deleted(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    created = api.create_namespaced_pod("default", pod("good", "exit 0"))
    assert (created.status.phase, created.metadata.namespace) == ("Pending", "default")
    cluster.wait_until(has_phase("good", "Succeeded"))
    read = api.read_namespaced_pod("good", "default")
    terminated = read.status.container_statuses[0].state.terminated
    assert (terminated.exit_code, terminated.reason) == (0, "Completed")
    assert terminated.started_at <= terminated.finished_at
    api.delete_namespaced_pod("good", "default")
    assert cluster.pods() == []
    with pytest.raises(ApiException, match="not found") as caught:
        api.read_namespaced_pod("good", "default")
    assert caught.value.status == 404


def test_a_failed_container_fails_its_pod_with_its_exit_code(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("bad", "exit 3"))
    cluster.wait_until(has_phase("bad", "Failed"))
    terminated = base_state(cluster, "bad")["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (3, "Error")


def test_a_program_that_does_not_exist_is_a_start_error(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("lost", "", command=["no-such-program"]))
    cluster.wait_until(has_phase("lost", "Failed"))
    terminated = base_state(cluster, "lost")["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (128, "StartError")
    assert 'exec: "no-such-program"' in terminated["message"]


def test_pods_are_found_by_labels_and_by_name(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "", labels={"task": "score", "checked": "True"}))
    api.create_namespaced_pod("default", pod("two", "", labels={"task": "score"}))
    api.create_namespaced_pod("default", pod("worker", "", labels={"task": "score", "airflow-worker": "5"}))
    api.create_namespaced_pod("default", pod("other", "", labels={"task": "else"}))

    def names(**selectors: str) -> list[str]:
        return [item.metadata.name for item in api.list_namespaced_pod("default", **selectors).items]

    assert names() == ["one", "two", "worker", "other"]
    assert names(label_selector="task=score,checked!=True,!airflow-worker") == ["two"]
    assert names(label_selector="airflow-worker") == ["worker"]
    assert names(field_selector="metadata.name=other") == ["other"]
    with pytest.raises(ApiException, match="unable to parse requirement"):
        names(label_selector="task in (score)")


def test_a_patch_merges_labels(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "", labels={"kept": "yes", "changed": "no", "removed": "no"}))
    labels = {"changed": "yes", "removed": None, "already_checked": "True"}
    api.patch_namespaced_pod("one", "default", {"metadata": {"labels": labels}})
    patched = api.read_namespaced_pod("one", "default").metadata.labels
    assert patched == {"kept": "yes", "changed": "yes", "already_checked": "True"}
    with pytest.raises(ApiException, match="may not change fields"):
        api.patch_namespaced_pod("one", "default", {"spec": {"restartPolicy": "Always"}})


def test_a_deleted_pod_may_stop_in_its_own_time_and_is_there_until_then(
    cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path
) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    script = f"trap 'echo asked to stop; cat {gate}; echo done; exit 0' TERM; echo ready; sleep 1000 & wait"
    api.create_namespaced_pod("default", pod("one", script))
    cluster.wait_for_log("ready")
    api.delete_namespaced_pod("one", "default", body=V1DeleteOptions(grace_period_seconds=20))
    cluster.wait_for_log("asked to stop")
    stopping = api.read_namespaced_pod("one", "default")
    assert (stopping.metadata.deletion_grace_period_seconds, stopping.status.phase) == (20, "Running")
    assert stopping.metadata.deletion_timestamp is not None
    gate.write_text("go on")
    cluster.wait_until(is_gone("one"))
    assert cluster.log("one").endswith("go ondone\n")


def test_a_pod_that_does_not_stop_is_killed_after_its_grace_period(
    cluster: FakeKubernetes, api: CoreV1Api, lifeline: Lifeline
) -> None:
    api.create_namespaced_pod("default", pod("one", f"exec 3> {lifeline.path}; {IGNORES_TERM}"))
    cluster.wait_for_log("ready")
    api.delete_namespaced_pod("one", "default", grace_period_seconds=1)
    assert not lifeline.is_cut(timeout=0.5)
    assert cluster.pods() == ["one"]
    cluster.wait_until(is_gone("one"))
    assert lifeline.is_cut(timeout=0)


def test_the_pod_says_how_long_it_may_take_where_the_request_does_not(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    manifest = pod("one", IGNORES_TERM)
    manifest["spec"]["terminationGracePeriodSeconds"] = 77
    api.create_namespaced_pod("default", manifest)
    cluster.wait_for_log("ready")
    api.delete_namespaced_pod("one", "default", body=V1DeleteOptions())
    assert cluster.pod("one")["metadata"]["deletionGracePeriodSeconds"] == 77
    # A second request may shorten the wait.
    api.delete_namespaced_pod("one", "default", grace_period_seconds=0)
    assert cluster.pods() == []


def test_a_name_may_be_used_again_only_after_the_pod_is_gone(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", IGNORES_TERM))
    cluster.wait_for_log("ready")
    with pytest.raises(ApiException, match='pods \\\\"one\\\\" already exists') as caught:
        api.create_namespaced_pod("default", pod("one", ""))
    assert caught.value.status == 409
    api.delete_namespaced_pod("one", "default", grace_period_seconds=0)
    api.create_namespaced_pod("default", pod("one", "echo the second"))
    cluster.wait_for_log("the second")
    assert len(cluster.created) == 2


def test_init_containers_run_first_and_share_volumes(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    manifest = pod("one", "cat /shared/word", volumeMounts=mounts)
    first = pod("", "echo from the first > /shared/word", volumeMounts=mounts)["spec"]["containers"][0]
    manifest["spec"] |= {
        "initContainers": [{**first, "name": "first"}],
        "volumes": [{"name": "shared", "emptyDir": {}}],
    }
    api.create_namespaced_pod("default", manifest)
    cluster.wait_until(has_phase("one", "Succeeded"))
    assert cluster.log("one") == "from the first\n"


def test_a_failed_init_container_keeps_the_others_from_starting(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    manifest = pod("one", "echo should not run")
    manifest["spec"]["initContainers"] = [{**pod("", "exit 4")["spec"]["containers"][0], "name": "first"}]
    api.create_namespaced_pod("default", manifest)
    cluster.wait_until(has_phase("one", "Failed"))
    assert base_state(cluster, "one") == {"waiting": {"reason": "PodInitializing"}}


def test_a_pod_past_its_active_deadline_fails(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    manifest = pod("one", TRAPS_TERM)
    manifest["spec"]["activeDeadlineSeconds"] = 1
    api.create_namespaced_pod("default", manifest)
    cluster.wait_until(has_phase("one", "Failed"))
    assert cluster.pod("one")["status"]["reason"] == "DeadlineExceeded"


def test_a_pod_killed_for_its_memory_says_so(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", TRAPS_TERM))
    cluster.wait_for_log("ready")
    cluster.oom_kill("one")
    cluster.wait_until(has_phase("one", "Failed"))
    terminated = base_state(cluster, "one")["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (137, "OOMKilled")
    with pytest.raises(ValueError, match="runs no container"):
        cluster.oom_kill("one")


def test_an_evicted_pod_stays_with_its_reason(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", TRAPS_TERM))
    cluster.wait_for_log("ready")
    cluster.evict("one", "The node was low on resource: memory.")
    cluster.wait_until(has_phase("one", "Failed"))
    status = api.read_namespaced_pod("one", "default").status
    assert (status.reason, status.message) == ("Evicted", "The node was low on resource: memory.")
    assert "asked to stop" in cluster.log("one")
    assert ("Evicted", "The node was low on resource: memory.") in cluster.events("one")


def test_a_pod_can_vanish_and_its_process_with_it(cluster: FakeKubernetes, api: CoreV1Api, lifeline: Lifeline) -> None:
    api.create_namespaced_pod("default", pod("one", f"exec 3> {lifeline.path}; {IGNORES_TERM}"))
    cluster.wait_for_log("ready")
    cluster.vanish("one")
    assert cluster.pods() == []
    assert lifeline.is_cut(timeout=10)


def test_a_forgotten_pod_runs_on_to_its_end(cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    api.create_namespaced_pod("default", pod("one", f"echo ready; cat {gate}; echo the end"))
    cluster.wait_for_log("ready")
    cluster.forget("one")
    assert cluster.pods() == []
    gate.write_text("go on\n")
    assert cluster.wait_for_log("the end") == "one"


def test_what_a_container_leaves_behind_ends_with_it(
    cluster: FakeKubernetes, api: CoreV1Api, lifeline: Lifeline
) -> None:
    api.create_namespaced_pod("default", pod("one", f"exec 3> {lifeline.path}; sleep 1000 & exit 0"))
    cluster.wait_until(has_phase("one", "Succeeded"))
    assert lifeline.is_cut(timeout=10)


def test_no_process_outlives_the_cluster(tmp_path: Path, lifeline: Lifeline) -> None:
    with fake_kubernetes(tmp_path / "cluster", Processes({IMAGE: Image({"PATH": "/usr/bin:/bin"})})) as cluster:
        with new_client_from_config(str(cluster.kubeconfig)) as client:
            script = f"exec 3> {lifeline.path}; {IGNORES_TERM}"
            CoreV1Api(client).create_namespaced_pod("default", pod("one", script))
        cluster.wait_for_log("ready")
        cluster.forget("one")
    assert lifeline.is_cut(timeout=0)


@pytest.mark.parametrize(
    ("image", "policy", "reason", "words"),
    [
        ("registry.test/none:1", "IfNotPresent", "ErrImagePull", 'Failed to pull image "registry.test/none:1": '),
        ("registry.test/none:1", "IfNotPresent", "ImagePullBackOff", 'Back-off pulling image "registry.test/none:1"'),
        ("registry.test/none:1", "Never", "ErrImageNeverPull", "is not present with pull policy of Never"),
        ("UPPER CASE", "IfNotPresent", "InvalidImageName", "invalid reference format"),
    ],
)
def test_an_image_that_cannot_be_had_is_waited_for(
    cluster: FakeKubernetes, api: CoreV1Api, image: str, policy: str, reason: str, words: str
) -> None:
    api.create_namespaced_pod("default", pod("one", "", image=image, imagePullPolicy=policy))
    cluster.wait_until(waits_with("one", reason, words))
    assert any(words in message for _, message in cluster.events("one"))
    with pytest.raises(ApiException, match="is waiting to start"):
        api.read_namespaced_pod_log("one", "default")
    api.delete_namespaced_pod("one", "default")
    cluster.wait_until(is_gone("one"))


def test_a_pod_waits_until_the_node_has_what_it_asks_for(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    gpu: dict[str, Any] = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    api.create_namespaced_pod("default", pod("first", TRAPS_TERM, **gpu))
    cluster.wait_for_log("ready")
    api.create_namespaced_pod("default", pod("second", "exit 0", **gpu))
    cluster.wait_until(lambda cluster: "conditions" in cluster.pod("second")["status"])
    cluster.wait_until(lambda cluster: cluster.events("second") != [])
    status = api.read_namespaced_pod("second", "default").status
    words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    condition = status.conditions[0]
    assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable")
    assert (condition.message, status.phase, status.container_statuses) == (words, "Pending", None)
    assert cluster.events("second") == [("FailedScheduling", words)]
    api.delete_namespaced_pod("first", "default")
    cluster.wait_until(has_phase("second", "Succeeded"))
