"""Containers beside each other, deadlines as an old kubelet shows them, and a node with another clock."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import base_state, has_phase, pod

NEVER_ENDS = "echo beside; exec sleep 1000"


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {**pod("", script)["spec"]["containers"][0], "name": name, **more}


def base_has_ended(cluster: FakeKubernetes) -> bool:
    return "terminated" in base_state(cluster, "one")


def test_a_pod_runs_on_while_a_container_beside_its_base_does(
    cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path
) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    manifest = pod("one", "exit 3")
    manifest["spec"]["containers"].append(container("side", f"echo beside; cat {gate}"))
    api.create_namespaced_pod("default", manifest)
    cluster.wait_for_log("beside")
    cluster.wait_until(base_has_ended)
    assert base_state(cluster, "one")["terminated"]["exitCode"] == 3
    assert has_phase("one", "Running")(cluster)
    gate.write_text("")
    cluster.wait_until(has_phase("one", "Failed"))


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_a_native_sidecar_blocks_nobody_and_is_ended_when_the_others_have_ended(
    cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path, code: int, phase: str
) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    stops_late = f"trap 'echo asked to stop; cat {gate}; exit 9' TERM; echo beside; sleep 1000 & wait"
    manifest = pod("one", f"exit {code}")
    manifest["spec"]["initContainers"] = [
        container("side", stops_late, restartPolicy="Always"),
        container("first", "echo from the first"),
    ]
    api.create_namespaced_pod("default", manifest)
    cluster.wait_until(base_has_ended)
    cluster.wait_for_log("from the first")
    cluster.wait_for_log("asked to stop")
    assert base_state(cluster, "one")["terminated"]["exitCode"] == code
    assert has_phase("one", "Running")(cluster)
    assert ("Killing", "Stopping container side") in cluster.events("one")
    gate.write_text("")
    cluster.wait_until(has_phase("one", phase))


def test_a_sidecar_ends_with_an_init_container_that_fails(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    manifest = pod("one", "echo should not run")
    manifest["spec"]["initContainers"] = [
        container("side", NEVER_ENDS, restartPolicy="Always"),
        container("first", "exit 4"),
    ]
    api.create_namespaced_pod("default", manifest)
    cluster.wait_until(has_phase("one", "Failed"))
    assert "should not run" not in cluster.log("one")


def test_an_old_kubelet_shows_the_deadline_before_the_containers_have_ended(
    cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path
) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    manifest = pod("one", f"trap 'cat {gate}; exit 143' TERM; echo ready; sleep 1000 & wait")
    manifest["spec"] |= {"activeDeadlineSeconds": 3600, "terminationGracePeriodSeconds": 100}
    api.create_namespaced_pod("default", manifest)
    cluster.wait_for_log("ready")
    cluster.wait_until(has_phase("one", "Running"))
    cluster.show_deadlines_early()
    cluster.end_overdue("one")
    status = api.read_namespaced_pod("one", "default").status
    assert (status.phase, status.reason) == ("Failed", "DeadlineExceeded")
    assert status.container_statuses[0].state.running is not None
    gate.write_text("")
    cluster.wait_until(base_has_ended)
    assert has_phase("one", "Failed")(cluster)


def test_the_node_may_have_another_clock(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    cluster.clock_skew_seconds = -7200
    before = time.time()
    api.create_namespaced_pod("default", pod("one", "echo a line"))
    cluster.wait_until(has_phase("one", "Succeeded"))
    read = api.read_namespaced_pod("one", "default")
    terminated = read.status.container_statuses[0].state.terminated
    log = api.read_namespaced_pod_log("one", "default", timestamps=True, since_seconds=600, _preload_content=False)
    event = api.list_namespaced_event("default").items[-1]
    of_the_node = [
        read.status.start_time,
        terminated.finished_at,
        event.last_timestamp,
        datetime.fromisoformat(log.data.decode().split(" ")[0]),
    ]
    assert all(moment.timestamp() < before - 3600 for moment in of_the_node)
    assert read.metadata.creation_timestamp.timestamp() > before - 60
