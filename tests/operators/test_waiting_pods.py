"""For how long a pod that does not run yet is waited for, by a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import models as k8s

from clip_operator.operators.execution.pods.watch import Patience, Sight, sights

BACK_OFF = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "clip:1"'}
CREATING = {"reason": "ContainerCreating"}
NO_SECRET = {"reason": "CreateContainerConfigError", "message": 'secret "late" not found'}


class Scripted:
    """Shows, second by second, for what a pod waits; its clock is the one that is asleep meanwhile."""

    def __init__(self, waits: Sequence[tuple[int, dict[str, Any]]], *pull_errors: str) -> None:
        self.seconds = 0.0
        self._waits = waits
        self._events = [
            k8s.CoreV1Event(metadata=k8s.V1ObjectMeta(uid=text), involved_object={}, reason="Failed", message=text)
            for text in pull_errors
        ]

    async def pod(self) -> k8s.V1Pod:
        """Return the pod as it is at this second."""
        why = [reason for since, reason in self._waits if since <= self.seconds][-1]
        state = {"name": "base", "image": "clip:1", "imageID": "", "ready": False, "restartCount": 0}
        conditions = [{"type": "PodScheduled", "status": "True"}]
        status = {
            "phase": "Pending",
            "conditions": conditions,
            "containerStatuses": [{**state, "state": {"waiting": why}}],
        }
        manifest = {"metadata": {"name": "score-1"}, "spec": {"containers": [{"name": "base"}]}, "status": status}
        return PodGenerator.deserialize_model_dict(manifest)

    async def events(self) -> Sequence[k8s.CoreV1Event]:
        """Return the events of the pulls that failed."""
        return self._events

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.seconds += seconds


def last_sight(cluster: Scripted) -> Sight:
    patience = Patience("base", 900, 900, 5, 2, 3600, False, 0.0)

    async def watch() -> Sight:
        return [sight async for sight in sights(cluster, patience)][-1]

    with patch("time.time", lambda: cluster.seconds), patch("asyncio.sleep", cluster.sleep):
        return asyncio.run(watch())


@pytest.mark.parametrize(
    ("why", "seconds"),
    [
        ('Failed to pull image "clip:1": rpc error: code = NotFound: clip:1: not found', 30),
        ('Failed to pull image "clip:1": dial tcp: lookup registry.exmaple: no such host', 30),
        ('Failed to pull image "clip:1": dial tcp 10.0.0.1:443: connect: connection refused', 900),
        ('Failed to pull image "clip:1": 429 Too Many Requests', 900),
    ],
)
def test_while_a_kubelet_backs_off_the_events_say_whether_the_image_may_still_come(why: str, seconds: int) -> None:
    cluster = Scripted([(0, BACK_OFF)], why, "Error: ImagePullBackOff")
    assert last_sight(cluster).stuck == f"the image 'clip:1' cannot be pulled (ImagePullBackOff): {why}"
    assert cluster.seconds == seconds


def test_what_mends_itself_within_the_grace_is_forgotten() -> None:
    cluster = Scripted([(0, NO_SECRET), (25, CREATING), (40, NO_SECRET)])
    assert (
        last_sight(cluster).stuck
        == 'the pod score-1 could not start (CreateContainerConfigError): secret "late" not found'
    )
    assert cluster.seconds == 70
