"""Pods that do not begin yet: what they wait for, how they say so, and what mends it."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client import CoreV1Api

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import IMAGE, base_state, has_phase, pod, waits_with

MISSING_CLAIM = (
    '0/1 nodes are available: persistentvolumeclaim "models" not found. '
    "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
)


def with_volume(script: str, **volume: Any) -> dict[str, Any]:
    manifest = pod("one", script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    manifest["spec"]["volumes"] = [{"name": "v", **volume}]
    return manifest


def has_event(reason: str, message: str, times: int = 1) -> Any:
    def condition(cluster: FakeKubernetes) -> bool:
        return cluster.event_counts("one").get((reason, message), 0) >= times

    return condition


def test_files_of_secrets_and_config_maps_are_mounted(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    cluster.secrets["store"] = {"key": "of a secret", "other": "not chosen"}
    cluster.config_maps["settings"] = {"level": "of a config map"}
    script = "cat /s/deep/file; echo; ls /s /s/deep; cat /c/level; ls /none"
    manifest = pod("one", script, volumeMounts=[{"name": name, "mountPath": f"/{name}"} for name in ("s", "c", "none")])
    items = [{"key": "key", "path": "deep/file"}]
    manifest["spec"]["volumes"] = [
        {"name": "s", "secret": {"secretName": "store", "items": items}},
        {"name": "c", "configMap": {"name": "settings"}},
        {"name": "none", "configMap": {"name": "missing", "optional": True}},
        {"name": "unused", "configMap": {"name": "missing"}},
    ]
    api.create_namespaced_pod("default", manifest)
    cluster.wait_until(has_phase("one", "Succeeded"))
    lines = cluster.log("one").splitlines()
    assert lines[0] == "of a secret"
    assert "other" not in lines
    assert lines[-1] == "of a config map"


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"secret": {"secretName": "later"}}, 'secret "later" not found'),
        ({"configMap": {"name": "later"}}, 'configmap "later" not found'),
    ],
)
def test_a_pod_waits_until_what_it_mounts_is_there(
    cluster: FakeKubernetes, api: CoreV1Api, volume: dict[str, Any], words: str
) -> None:
    api.create_namespaced_pod("default", with_volume("cat /v/key", **volume))
    message = f'MountVolume.SetUp failed for volume "v" : {words}'
    cluster.wait_until(has_event("FailedMount", message, times=2))
    assert cluster.events("one").count(("FailedMount", message)) == 1
    assert base_state(cluster, "one") == {"waiting": {"reason": "ContainerCreating"}}
    assert cluster.pod("one")["status"]["phase"] == "Pending"
    events = api.list_namespaced_event("default", field_selector="involvedObject.name=one").items
    assert (events[-1].type, events[-1].source.component) == ("Warning", "kubelet")
    contents = cluster.secrets if "secret" in volume else cluster.config_maps
    contents["later"] = {"key": "at last"}
    cluster.wait_until(has_phase("one", "Succeeded"))
    assert cluster.log("one") == "at last\n"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("secret", "references non-existent secret key: none"),
        ("configMap", "references non-existent config key: none"),
    ],
)
def test_a_key_that_does_not_exist_cannot_be_mounted(
    cluster: FakeKubernetes, api: CoreV1Api, kind: str, words: str
) -> None:
    cluster.secrets["store"] = cluster.config_maps["store"] = {"key": "x"}
    name = "secretName" if kind == "secret" else "name"
    api.create_namespaced_pod(
        "default", with_volume("", **{kind: {name: "store", "items": [{"key": "none", "path": "x"}]}})
    )
    cluster.wait_until(has_event("FailedMount", f'MountVolume.SetUp failed for volume "v" : {words}'))


def test_a_pod_whose_claim_does_not_exist_finds_no_node(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", with_volume("", persistentVolumeClaim={"claimName": "models"}))
    cluster.wait_until(has_event("FailedScheduling", MISSING_CLAIM))
    status = cluster.pod("one")["status"]
    assert (status["phase"], status["conditions"][0]["message"]) == ("Pending", MISSING_CLAIM)
    cluster.claims.add("models")
    cluster.wait_until(has_phase("one", "Succeeded"))


def test_a_container_whose_secret_comes_later_begins(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "echo $KEY", envFrom=[{"secretRef": {"name": "later"}}]))
    cluster.wait_until(waits_with("one", "CreateContainerConfigError"))
    cluster.wait_until(has_event("Failed", 'Error: secret "later" not found', times=2))
    cluster.secrets["later"] = {"KEY": "at last"}
    cluster.wait_until(has_phase("one", "Succeeded"))
    assert cluster.log("one") == "at last\n"


def test_a_pull_that_fails_and_its_back_off_alternate_until_it_succeeds(
    cluster: FakeKubernetes, api: CoreV1Api
) -> None:
    why = "rpc error: code = Unavailable desc = dial tcp: i/o timeout"
    cluster.pull_problems[IMAGE] = why
    api.create_namespaced_pod("default", pod("one", "echo ready"))
    for _ in range(2):
        cluster.wait_until(waits_with("one", "ErrImagePull", f'Failed to pull image "{IMAGE}": {why}'))
        cluster.wait_until(waits_with("one", "ImagePullBackOff", f'Back-off pulling image "{IMAGE}"'))
    del cluster.pull_problems[IMAGE]
    cluster.wait_until(has_phase("one", "Succeeded"))


def test_a_gated_pod_is_not_scheduled_until_its_gates_are_lifted(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    manifest = pod("one", "echo ready")
    manifest["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    created = api.create_namespaced_pod("default", manifest).status
    (condition,) = created.conditions
    assert (created.phase, created.start_time) == ("Pending", None)
    assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "SchedulingGated")
    api.create_namespaced_pod("default", pod("two", ""))
    cluster.wait_until(has_phase("two", "Succeeded"))
    assert (has_phase("one", "Pending")(cluster), cluster.events("one")) == (True, [])
    cluster.lift_gates("one")
    cluster.wait_until(has_phase("one", "Succeeded"))
