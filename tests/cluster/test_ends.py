"""How pods end on a real cluster other than by doing their work, and what the task says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from kubernetes import client

from tests.cluster.cluster import ENVIRONMENT, wait_until
from tests.cluster.modes import SECONDS, in_both_modes
from tests.cluster.scene import Scene

_TAINT = "clip-cluster-test"


def beside(scene: Scene, command: str, *, native: bool = False, **container: Any) -> dict[str, Any]:
    """Return a pod's settings in which another container runs a shell command beside the scorer."""
    other = {
        "name": "beside",
        "image": scene.cluster.box_image,
        "command": ["sh", "-c", command],
        "securityContext": {"runAsUser": 1000},
        **container,
    }
    # What runs beside the scorer does not go when it is told to.
    spec: dict[str, Any] = {"terminationGracePeriodSeconds": 10, "containers": [{"name": "base"}]}
    if native:
        spec["initContainers"] = [{**other, "restartPolicy": "Always"}]
    else:
        spec["containers"].append(other)
    return {"pod_template_dict": {"spec": spec}}


@in_both_modes
@pytest.mark.parametrize("native", [False, True], ids=["ordinary", "native"])
def test_the_end_of_the_scorer_is_the_end_of_the_work_whatever_runs_beside_it(
    scene: Scene, deferrable: bool, native: bool
) -> None:
    if native and scene.cluster.version < (1, 29):
        pytest.skip(f"native sidecars came with Kubernetes 1.29, and this is {scene.cluster.version}")
    ti = scene.task(beside(scene, "while true; do sleep 1; done", native=native), deferrable=deferrable)
    assert ti.next_try().start().result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
def test_the_scorers_own_error_is_the_tasks_although_another_container_goes_on(scene: Scene, deferrable: bool) -> None:
    ti = scene.task(beside(scene, "while true; do sleep 1; done"), model_name="/no/model", deferrable=deferrable)
    with pytest.raises(AirflowException, match=r"^model '/no/model' not found"):
        ti.next_try().start().result(SECONDS)
    assert scene.nothing_was_written()
    scene.wait_until_gone()


def deleted(scene: Scene, name: str) -> None:
    """Do what `kubectl delete pod` does."""
    scene.cluster.delete(name)


def evicted(scene: Scene, name: str) -> None:
    """Do what a cluster autoscaler does to a pod."""
    scene.cluster.evict(name)


def drained(scene: Scene, name: str) -> None:
    """Do what `kubectl drain` does, to this pod alone."""
    node = scene.look(name).spec.node_name
    scene.cluster.core.patch_node(node, {"spec": {"unschedulable": True}})
    try:
        scene.cluster.evict(name)
        wait_until(lambda: scene.look(name) is None)
    finally:
        scene.cluster.core.patch_node(node, {"spec": {"unschedulable": None}})


def tainted(scene: Scene, name: str) -> None:
    """Have the node tolerate nothing that runs there."""
    if ENVIRONMENT.get("CLIP_CLUSTER_TAINTS") != "1":
        pytest.skip("a taint evicts all that runs on the node: CLIP_CLUSTER_TAINTS=1 allows it")
    node = scene.look(name).spec.node_name
    taints = scene.cluster.core.read_node(node).spec.taints or []
    scene.cluster.core.patch_node(
        node, {"spec": {"taints": [*taints, {"key": _TAINT, "value": "1", "effect": "NoExecute"}]}}
    )
    try:
        wait_until(lambda: scene.look(name) is None)
    finally:
        left = [taint for taint in scene.cluster.core.read_node(node).spec.taints or [] if taint.key != _TAINT]
        scene.cluster.core.patch_node(node, {"spec": {"taints": left or None}})


@in_both_modes
@pytest.mark.parametrize("way", [deleted, evicted, drained, tainted], ids=lambda way: way.__name__)
def test_a_pod_that_is_taken_away_fails_the_task_and_the_next_try_has_another(
    scene: Scene, deferrable: bool, way: Callable[[Scene, str], None]
) -> None:
    ti = scene.held_task(deferrable=deferrable)
    running = ti.next_try().start()
    name = scene.wait_for_held()
    way(scene, name)
    with pytest.raises(AirflowException, match=r"deleted|evicted|gone|disrupted") as failure:
        running.result(SECONDS)
    assert not isinstance(failure.value, AirflowFailException)
    assert scene.nothing_was_written()
    scene.let_go()
    assert ti.next_try().start().result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    assert len(scene.api.created) == 2


@contextmanager
def priority_class(scene: Scene) -> Iterator[str]:
    """Give a priority above that of ordinary pods."""
    classes = client.SchedulingV1Api(scene.cluster.api)
    name = scene.cluster.name
    classes.create_priority_class({"metadata": {"name": name}, "value": 1_000_000})
    try:
        yield name
    finally:
        classes.delete_priority_class(name)


@in_both_modes
def test_a_preempted_pod_fails_the_task_for_this_try(scene: Scene, deferrable: bool) -> None:
    port = {"containerPort": 28999, "hostPort": 28999}  # which two pods cannot have on one node
    ti = scene.held_task({"ports": [port]}, deferrable=deferrable)
    running = ti.next_try().start()
    name = scene.wait_for_held()
    node = scene.look(name).spec.node_name
    with priority_class(scene) as above:
        spec = {
            "priorityClassName": above,
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {
                "kubernetes.io/hostname": scene.cluster.core.read_node(node).metadata.labels["kubernetes.io/hostname"]
            },
            "containers": [
                {"name": "box", "image": scene.cluster.box_image, "command": ["sleep", "600"], "ports": [port]}
            ],
        }
        other = f"{scene.cluster.name}-preemptor-{scene.name}"
        scene.cluster.core.create_namespaced_pod(scene.cluster.namespace, {"metadata": {"name": other}, "spec": spec})
        try:
            with pytest.raises(AirflowException, match=r"preempt|Preempt|disrupted|deleted|gone") as failure:
                running.result(SECONDS)
        finally:
            scene.cluster.delete(other, grace_period_seconds=0)
    assert not isinstance(failure.value, AirflowFailException)
    assert scene.nothing_was_written()
    assert len(scene.api.created) == 1


@in_both_modes
def test_a_pod_out_of_memory_says_so(scene: Scene, deferrable: bool) -> None:
    ti = scene.task({"container_resources": {"limits": {"memory": "64Mi"}}}, deferrable=deferrable)
    with pytest.raises(AirflowException, match=r"memory limit is 64Mi, ran out of memory and was killed \(OOMKilled\)"):
        ti.next_try().start().result(SECONDS)
    assert scene.manifest(ti) is None
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
def test_a_pod_that_reaches_its_deadline_says_so(scene: Scene, deferrable: bool) -> None:
    ti = scene.held_task({"active_deadline_seconds": 20}, deferrable=deferrable)
    with pytest.raises(AirflowException, match="was ended by its deadline"):
        ti.next_try().start().result(SECONDS)
    assert scene.nothing_was_written()
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
def test_a_pod_that_the_kubelet_evicts_says_why(scene: Scene, deferrable: bool) -> None:
    full = "sleep 10; dd if=/dev/zero of=/small/file bs=1M count=20; sleep 600"
    mounted = [{"name": "small", "mountPath": "/small"}]
    pod = beside(scene, full.replace("dd ", "busybox dd "), volumeMounts=mounted)
    pod["pod_template_dict"]["spec"]["volumes"] = [{"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}]
    ti = scene.held_task(pod, deferrable=deferrable)
    with pytest.raises(AirflowException, match=r"was evicted\. .*small"):
        ti.next_try().start().result(SECONDS)
    assert scene.nothing_was_written()
    assert len(scene.api.created) == 1
    scene.wait_until_gone()
