"""Pods that a real cluster does not start: the task says why, and does not wait for what does not mend itself."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from tests.cluster.cluster import GATE
from tests.cluster.modes import SECONDS, in_both_modes
from tests.cluster.scene import Scene

_MISSING_VOLUME: dict[str, Any] = {
    "volumes": [{"name": "missing", "configMap": {"name": "no-such-map"}}],
    "volume_mounts": [{"name": "missing", "mountPath": "/missing"}],
}


@in_both_modes
@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"image": "Not::an/Image"}, r"InvalidImageName"),
        ({"image": "localhost/clip-cluster-no-such:2", "image_pull_policy": "Never"}, r"ErrImageNeverPull"),
        ({"env_from": [{"secretRef": {"name": "no-such-secret"}}]}, r"no-such-secret"),
        (_MISSING_VOLUME, r"no-such-map"),
    ],
    ids=["no image's name", "never pulled", "no secret", "no config map"],
)
def test_what_does_not_mend_itself_ends_the_task_long_before_its_time_to_start_is_up(
    scene: Scene, deferrable: bool, pod: dict[str, Any], words: str
) -> None:
    ti = scene.task(pod, deferrable=deferrable)
    with pytest.raises(AirflowException, match=words) as failure:
        ti.next_try().start().result(SECONDS)
    assert not isinstance(failure.value, AirflowFailException)
    assert scene.nothing_was_written()
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
def test_an_image_whose_registry_does_not_answer_is_waited_for_as_long_as_a_pod_may_take_to_start(
    scene: Scene, deferrable: bool
) -> None:
    ti = scene.task({"image": "localhost/clip-cluster-no-such:1", "startup_timeout_seconds": 60}, deferrable=deferrable)
    with pytest.raises(AirflowException, match=r"the image '\S+no-such:1' cannot be pulled \(\w+\): ") as failure:
        ti.next_try().start().result(SECONDS)
    assert not isinstance(failure.value, AirflowFailException)
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
def test_a_pod_that_no_node_takes_says_what_is_lacking(scene: Scene, deferrable: bool) -> None:
    lacking = {"schedule_timeout_seconds": 10, "container_resources": {"limits": {"example.com/none": 1}}}
    ti = scene.task(lacking, deferrable=deferrable)
    with pytest.raises(AirflowException, match=r"no node took the pod \S+ in .*: .*example.com/none"):
        ti.next_try().start().result(SECONDS)
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
def test_a_pod_that_kubernetes_refuses_is_not_tried_again(scene: Scene, deferrable: bool) -> None:
    ti = scene.task({"volume_mounts": [{"name": "nowhere", "mountPath": "/x"}]}, deferrable=deferrable)
    with pytest.raises(AirflowFailException, match="nowhere"):
        ti.next_try().start().result(SECONDS)
    assert scene.api.created == []


@in_both_modes
def test_a_namespace_whose_quota_is_exceeded_says_so(scene: Scene, deferrable: bool) -> None:
    with scene.cluster.own_namespace(scene.s3.store, GATE) as full:
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        full.core.create_namespaced_resource_quota(full.namespace, quota)
        ti = scene.elsewhere(full).task(deferrable=deferrable)
        with pytest.raises(AirflowException, match="exceeded quota") as failure:
            ti.next_try().start().result(SECONDS)
    assert not isinstance(failure.value, AirflowFailException)
    assert scene.api.created == []
