"""Refused requests, missing namespaces and wrong tokens, and what a test learns when it waits in vain."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config_dict
from urllib3.exceptions import HTTPError, ProtocolError

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import has_phase, pod

PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "Unauthorized"), (429, "TooManyRequests"), (500, "InternalError"), (503, "Service")]
)
def test_requests_fail_as_often_as_they_are_told_to(
    cluster: FakeKubernetes, api: CoreV1Api, status: int, reason: str
) -> None:
    api.create_namespaced_pod("default", pod("one", ""))
    cluster.fail("GET", r"/pods/one$", status, times=2, headers={"X-Node": "7"})
    api.list_namespaced_pod("default")
    for _ in range(2):
        with pytest.raises(ApiException, match=reason) as caught:
            api.read_namespaced_pod("one", "default")
        assert caught.value.status == status
        assert caught.value.headers["X-Node"] == "7"
    assert api.read_namespaced_pod("one", "default").metadata.name == "one"


def test_the_client_itself_comes_back_after_the_time_that_a_refusal_names(
    cluster: FakeKubernetes, api: CoreV1Api
) -> None:
    cluster.fail("GET", "/pods", 429, headers={"Retry-After": "0"})
    assert api.list_namespaced_pod("default").items == []
    assert len(cluster.requests) == 2


def test_requests_are_refused_until_the_test_ends_it(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "echo a line"))
    cluster.wait_until(has_phase("one", "Succeeded"))
    with cluster.refusing("GET", "/log", 500, message="dial tcp: connection refused"):
        for _ in range(3):
            with pytest.raises(ApiException, match="dial tcp: connection refused"):
                api.read_namespaced_pod_log("one", "default")
        assert api.read_namespaced_pod("one", "default").status.phase == "Succeeded"
    assert len([path for _, path in cluster.requests if "/log" in path]) == 3
    assert api.read_namespaced_pod_log("one", "default", _preload_content=False).data == b"a line\n"
    with cluster.refusing(None, "", 403):
        with pytest.raises(ApiException, match="Forbidden"):
            api.list_namespaced_pod("default")
        with pytest.raises(ApiException, match="Forbidden"):
            api.delete_namespaced_pod("one", "default")
    assert cluster.pods() == ["one"]


def test_in_an_outage_nobody_is_answered_and_the_pods_go_on(
    cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path
) -> None:
    os.mkfifo(gate := tmp_path / "gate")
    api.create_namespaced_pod("default", pod("one", f"echo first; cat {gate}"))
    cluster.wait_for_log("first")
    cluster.wait_until(has_phase("one", "Running"))
    options: dict[str, Any] = {"_preload_content": False, "_request_timeout": 20}
    stream = api.read_namespaced_pod_log("one", "default", follow=True, **options).stream()
    assert next(stream) == b"first\n"
    before = len(cluster.requests)
    with cluster.outage():
        with pytest.raises(ProtocolError):
            next(stream)
        with pytest.raises(HTTPError):
            api.read_namespaced_pod("one", "default")
        cluster.wait_until(lambda cluster: ("GET", PODS + "/one") in cluster.requests[before:])
        gate.write_text("second\n")
        cluster.wait_until(has_phase("one", "Succeeded"))
        with pytest.raises(HTTPError):
            api.delete_namespaced_pod("one", "default")
    assert api.read_namespaced_pod("one", "default").status.phase == "Succeeded"
    assert api.read_namespaced_pod_log("one", "default", _preload_content=False).data == b"first\nsecond\n"


def test_a_wrong_token_is_refused(cluster: FakeKubernetes) -> None:
    configuration = json.loads(cluster.kubeconfig.read_text())
    configuration["users"][0]["user"]["token"] = "another"
    with new_client_from_config_dict(configuration) as client, pytest.raises(ApiException, match="Unauthorized"):
        CoreV1Api(client).list_namespaced_pod("default")


def test_only_known_namespaces_exist(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    with pytest.raises(ApiException, match='namespaces \\\\"team\\\\" not found'):
        api.create_namespaced_pod("team", pod("one", ""))
    cluster.namespaces.add("team")
    api.create_namespaced_pod("team", pod("one", ""))
    assert api.list_namespaced_pod("default").items == []
    assert [item.metadata.namespace for item in api.list_namespaced_pod("team").items] == ["team"]


def test_requests_and_manifests_are_kept_as_they_came(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    manifest = pod("one", "echo $(UNKNOWN)")
    api.create_namespaced_pod("default", manifest)
    api.list_namespaced_pod("default", label_selector="a=b")
    assert cluster.created == [manifest]
    assert cluster.requests == [
        ("POST", "/api/v1/namespaces/default/pods"),
        ("GET", "/api/v1/namespaces/default/pods?labelSelector=a%3Db"),
    ]


def test_waiting_in_vain_tells_how_the_cluster_looks(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "echo a line of its log"))
    cluster.wait_until(has_phase("one", "Succeeded"))
    with pytest.raises(TimeoutError, match=r"(?s)POST /api/v1.*pod one: Succeeded.*event Started.*a line of its log"):
        cluster.wait_until(has_phase("one", "Failed"), timeout=0.1)
    with pytest.raises(TimeoutError):
        cluster.wait_for_log("another line", timeout=0.1)
