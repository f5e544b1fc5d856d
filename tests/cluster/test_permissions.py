"""What a service account may do that has the documented role is what the operator does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes import client

from tests.cluster.api_server import ApiServer, way_to
from tests.cluster.cluster import Cluster, wait_until
from tests.cluster.modes import SECONDS, in_both_modes
from tests.cluster.scene import Scene


@pytest.fixture
def bound(cluster: Cluster, tmp_path: Path) -> Iterator[ApiServer]:
    """The way of a service account that has the documented role, and nothing else."""
    page = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text()
    (role,) = (
        part
        for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        for part in yaml.safe_load_all(block)
        if part.get("kind") == "Role"
    )
    rbac, name, namespace = client.RbacAuthorizationV1Api(cluster.api), f"{cluster.name}-operator", cluster.namespace
    metadata = {"name": name}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    cluster.core.create_namespaced_service_account(namespace, {"metadata": metadata})
    rbac.create_namespaced_role(namespace, {"metadata": metadata, "rules": role["rules"]})
    rbac.create_namespaced_role_binding(namespace, {"metadata": metadata, "roleRef": reference, "subjects": [subject]})
    try:
        asked: Any = {"spec": {"expirationSeconds": 3600, "audiences": []}}
        token = cluster.core.create_namespaced_service_account_token(name, namespace, asked).status.token
        (folder := tmp_path / "bound").mkdir()
        with way_to(cluster.configuration, folder, f"Bearer {token}") as way:
            yield way
    finally:
        rbac.delete_namespaced_role_binding(name, namespace)
        rbac.delete_namespaced_role(name, namespace)
        cluster.core.delete_namespaced_service_account(name, namespace)


@in_both_modes
def test_the_documented_permissions_suffice_whatever_becomes_of_the_pod(
    scene: Scene, bound: ApiServer, deferrable: bool
) -> None:
    scene = replace(scene, api=bound)
    done = scene.task(deferrable=deferrable)
    assert done.next_try().start().result(SECONDS) == ["clip_score"]
    assert scene.has_done(done)
    failed = replace(
        done,
        parameters={**done.parameters, "model_name": "/no/model", "cache_path": f"{done.parameters['cache_path']}/2"},
        run_id="failed",
    )
    with pytest.raises(AirflowException, match=r"^model '/no/model' not found"):
        failed.next_try().start().result(SECONDS)
    lacking = replace(
        scene.held_task(
            {"schedule_timeout_seconds": 5, "container_resources": {"limits": {"example.com/none": 1}}},
            deferrable=deferrable,
            cache_path=f"{done.parameters['cache_path']}/3",
        ),
        run_id="lacking",
    )
    with pytest.raises(AirflowException, match="no node took the pod"):
        lacking.next_try().start().result(SECONDS)
    held = replace(scene.held_task(cache_path=f"{done.parameters['cache_path']}/4"), run_id="killed")
    current = held.next_try()
    running = current.start()
    name = scene.wait_for_held()
    later = replace(
        scene.held_task(cache_path=f"{done.parameters['cache_path']}/4", deferrable=deferrable),
        run_id="killed",
        try_number=1,
    )
    before = len(bound.requests)
    second = later.next_try().start()
    wait_until(lambda: len(bound.requests) > before + 2)
    scene.let_go(name)
    assert second.result(SECONDS) == ["clip_score"]
    running.exception(SECONDS)
    assert [asked for asked in bound.requests if asked.status == 403] == []
    scene.wait_until_gone()
