"""Refused requests, missing namespaces and wrong tokens, and what a test learns when it waits in vain."""

from __future__ import annotations

import json

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config_dict

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import has_phase, pod


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
