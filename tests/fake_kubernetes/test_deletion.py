"""Pods that go: deleted with or without conditions, and disrupted by others than their owner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api, V1DeleteOptions, V1Preconditions
from kubernetes.client.exceptions import ApiException

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import base_state, has_phase, is_gone, pod

WAITS = "echo ready; exec sleep 1000"


def holding(gate: Path) -> str:
    """Return a script that ends by SIGTERM as if it had no handler, but only once something is written to the gate."""
    return f"trap 'cat {gate}; exit 143' TERM; echo ready; sleep 1000 & wait"


def disruption(cluster: FakeKubernetes, name: str) -> dict[str, Any] | None:
    conditions = cluster.pod(name)["status"]["conditions"]
    return next((condition for condition in conditions if condition["type"] == "DisruptionTarget"), None)


def test_a_pod_is_deleted_only_as_its_preconditions_say(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", WAITS))
    cluster.wait_for_log("ready")
    cluster.wait_until(has_phase("one", "Running"))
    seen = api.read_namespaced_pod("one", "default").metadata
    api.patch_namespaced_pod("one", "default", {"metadata": {"annotations": {"try": "2"}}})
    for preconditions, words in (
        ({"uid": "another"}, r"the UID in the precondition \(another\) does not match the UID in record"),
        ({"uid": seen.uid, "resource_version": seen.resource_version}, "The object might have been modified"),
    ):
        options = V1DeleteOptions(preconditions=V1Preconditions(**preconditions))
        with pytest.raises(ApiException, match=words) as caught:
            api.delete_namespaced_pod("one", "default", body=options)
        assert (caught.value.status, '"reason": "Conflict"' in caught.value.body) == (409, True)
    assert "deletionTimestamp" not in cluster.pod("one")["metadata"]
    now = api.read_namespaced_pod("one", "default").metadata
    preconditions = V1Preconditions(uid=now.uid, resource_version=now.resource_version)
    api.delete_namespaced_pod("one", "default", body=V1DeleteOptions(preconditions=preconditions))
    cluster.wait_until(is_gone("one"))


def test_a_patch_of_what_has_changed_since_is_a_conflict(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", ""))
    cluster.wait_until(has_phase("one", "Succeeded"))
    seen = api.read_namespaced_pod("one", "default").metadata
    patch = {"metadata": {"resourceVersion": seen.resource_version, "annotations": {"try": "1"}}}
    patched = api.patch_namespaced_pod("one", "default", patch).metadata
    assert (patched.annotations, patched.resource_version != seen.resource_version) == ({"try": "1"}, True)
    with pytest.raises(ApiException, match="the object has been modified; please apply your changes to the") as caught:
        api.patch_namespaced_pod("one", "default", patch)
    assert (caught.value.status, '"reason": "Conflict"' in caught.value.body) == (409, True)
    with pytest.raises(ApiException, match=r"metadata\.uid: Invalid value") as caught:
        api.patch_namespaced_pod("one", "default", {"metadata": {"uid": "another"}})
    assert caught.value.status == 422


def test_a_pod_that_is_deleted_is_listed_until_it_has_ended_and_no_later_request_prolongs_that(
    cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path
) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    api.create_namespaced_pod("default", pod("one", holding(gate), labels={"task": "score"}))
    cluster.wait_for_log("ready")
    versions = [cluster.pod("one")["metadata"]["resourceVersion"]]
    api.delete_namespaced_pod("one", "default", grace_period_seconds=60)
    (listed,) = api.list_namespaced_pod("default", label_selector="task=score").items
    versions.append(listed.metadata.resource_version)
    assert listed.metadata.deletion_timestamp is not None
    assert len(set(versions)) == 2
    api.delete_namespaced_pod("one", "default", grace_period_seconds=90)
    again = api.read_namespaced_pod("one", "default").metadata
    assert (again.deletion_timestamp, again.deletion_grace_period_seconds) == (listed.metadata.deletion_timestamp, 60)
    gate.write_text("")
    cluster.wait_until(is_gone("one"))


@pytest.mark.parametrize(
    ("reason", "words", "events"),
    [
        (
            "PreemptionByScheduler",
            "default-scheduler: preempting to accommodate a higher priority pod",
            [("Preempted", "Preempted by pod ")],
        ),
        (
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            [("TaintManagerEviction", "Marking for deletion Pod default/one")],
        ),
        ("EvictionByEvictionAPI", "Eviction API: evicting", []),
    ],
)
@pytest.mark.parametrize("condition", [True, False])
def test_a_disrupted_pod_says_who_disrupts_it_ends_and_is_gone(
    cluster: FakeKubernetes,
    api: CoreV1Api,
    tmp_path: Path,
    reason: str,
    words: str,
    events: list[tuple[str, str]],
    condition: bool,
) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    os.mkfifo(side_gate := tmp_path / "side-gate")
    manifest = pod("one", holding(gate))
    side = {**manifest["spec"]["containers"][0], "name": "side", "args": [holding(side_gate).replace("ready", "side")]}
    manifest["spec"] |= {"terminationGracePeriodSeconds": 50}
    manifest["spec"]["containers"].append(side)
    api.create_namespaced_pod("default", manifest)
    cluster.wait_for_log("ready")
    cluster.wait_for_log("side")
    cluster.wait_until(has_phase("one", "Running"))
    cluster.disrupt("one", reason, condition=condition)
    seen = disruption(cluster, "one")
    if condition:
        assert seen is not None
        assert (seen["status"], seen["reason"], seen["message"]) == ("True", reason, words)
    else:
        assert seen is None
    metadata = api.read_namespaced_pod("one", "default").metadata
    assert metadata.deletion_timestamp is not None
    assert metadata.deletion_grace_period_seconds == 50
    expected = [*events, ("Killing", "Stopping container base"), ("Killing", "Stopping container side")]
    written = cluster.events("one")[-len(expected) :]
    assert [event[0] for event in written] == [event[0] for event in expected]
    assert all(message.startswith(start) for (_, message), (_, start) in zip(written, expected, strict=True))
    gate.write_text("")
    cluster.wait_until(lambda cluster: "terminated" in base_state(cluster, "one"))
    assert base_state(cluster, "one")["terminated"]["exitCode"] == 143
    side_gate.write_text("")
    cluster.wait_until(is_gone("one"))


def test_a_pod_that_its_kubelet_ends_stays_with_the_condition(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", WAITS))
    cluster.wait_for_log("ready")
    cluster.disrupt("one", "TerminationByKubelet", "The node was low on resource: ephemeral-storage.")
    cluster.wait_until(has_phase("one", "Failed"))
    status = cluster.pod("one")["status"]
    assert (status["reason"], status["message"]) == ("Evicted", "The node was low on resource: ephemeral-storage.")
    condition = disruption(cluster, "one")
    assert condition is not None
    assert condition["reason"] == "TerminationByKubelet"
    with pytest.raises(ValueError, match="has ended"):
        cluster.disrupt("one", "EvictionByEvictionAPI")
