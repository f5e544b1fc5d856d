"""What a container finds in its environment, its arguments and its folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import base_state, has_phase, pod, waits_with
from tests.fake_kubernetes.processes import real_paths


def output(cluster: FakeKubernetes, api: CoreV1Api, manifest: dict[str, Any]) -> list[str]:
    """Run a pod to its success and return the lines of its log."""
    api.create_namespaced_pod("default", manifest)
    name = manifest["metadata"]["name"]
    cluster.wait_until(has_phase(name, "Succeeded"))
    return cluster.log(name).splitlines()


def test_secrets_config_maps_and_fields_become_variables(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    cluster.secrets["store"] = {"KEY": "from a secret", "PLAIN": "of the secret"}
    cluster.config_maps["settings"] = {"level": "from a config map"}
    env = [
        {"name": "ONE", "valueFrom": {"secretKeyRef": {"name": "store", "key": "KEY"}}},
        {"name": "TWO", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "TEAM", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": True}}},
        {"name": "PLAIN", "value": "of the container"},
    ]
    env_from = [{"secretRef": {"name": "store"}}, {"prefix": "C_", "configMapRef": {"name": "settings"}}]
    script = 'echo "$ONE|$TWO|$NAME|$TEAM|${NONE-unset}|$PLAIN|$KEY|$C_level"'
    manifest = pod("one", script, env=env, envFrom=env_from, labels={"team": "curators"})
    expected = "from a secret|from a config map|one|curators|unset|of the container|from a secret|from a config map"
    assert output(cluster, api, manifest) == [expected]


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"secretRef": {"name": "none"}}]}, 'secret "none" not found'),
        ({"envFrom": [{"configMapRef": {"name": "none"}}]}, 'configmap "none" not found'),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "store", "key": "none"}}}]},
            "couldn't find key none in Secret default/store",
        ),
    ],
)
def test_a_container_whose_secret_is_missing_waits(
    cluster: FakeKubernetes, api: CoreV1Api, container: dict[str, Any], message: str
) -> None:
    cluster.secrets["store"] = {"key": "value"}
    api.create_namespaced_pod("default", pod("one", "", **container))
    cluster.wait_until(waits_with("one", "CreateContainerConfigError"))
    assert base_state(cluster, "one")["waiting"]["message"] == message
    assert cluster.events("one")[-1] == ("Failed", f"Error: {message}")


def test_references_to_variables_are_expanded_as_kubernetes_does(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    env = [
        {"name": "HOST", "value": "example.com"},
        {"name": "URL", "value": "https://$(HOST)/$(LATER)"},
        {"name": "LATER", "value": "late"},
        {"name": "ESCAPED", "value": "$$(HOST) $$ $HOST"},
    ]
    words = ["$(URL)", "$$(URL)", "$(NONE)", "a$$b", "$(echo)", "$("]
    manifest = pod("one", "", env=env, command=["printf", "%s\\n", "$(HOST)"], args=[*words, "$(ESCAPED)"])
    assert output(cluster, api, manifest) == [
        "example.com",
        "https://example.com/$(LATER)",
        "$(URL)",
        "$(NONE)",
        "a$b",
        "$(echo)",
        "$(",
        "$(HOST) $ $HOST",
    ]


def test_a_container_sees_nothing_of_the_environment_of_the_tests(
    cluster: FakeKubernetes, api: CoreV1Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_TESTS", "1")
    lines = output(cluster, api, pod("one", "exec env", env=[{"name": "MINE", "value": "1"}]))
    assert {line.partition("=")[0] for line in lines} <= {"MINE", "PATH", "PWD", "SHLVL", "OLDPWD", "_"}
    assert "MINE=1" in lines


def test_paths_of_volumes_lead_to_real_folders(cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "input").write_text("from the host")
    manifest = pod(
        "one",
        "cat /host/input | tee $OUT/result; cat /job/cache/result; echo s3://bucket/job/cache /network",
        env=[{"name": "OUT", "value": "/job/cache"}],
        volumeMounts=[{"name": "host", "mountPath": "/host"}, {"name": "cache", "mountPath": "/job/cache/"}],
    )
    manifest["spec"]["volumes"] = [
        {"name": "host", "hostPath": {"path": str(tmp_path / "host")}},
        {"name": "cache", "emptyDir": {}},
    ]
    assert output(cluster, api, manifest) == ["from the hostfrom the hosts3://bucket/job/cache /network"]


def test_what_a_claim_holds_outlives_a_pod(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    cluster.claims.add("models")
    for name, script, said in [("one", "echo kept > /models/x", []), ("two", "cat /models/x", ["kept"])]:
        manifest = pod(name, script, volumeMounts=[{"name": "v", "mountPath": "/models"}])
        manifest["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "models"}}]
        assert output(cluster, api, manifest) == said
        cluster.vanish(name)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/data", "/real/d"),
        ("/data/x", "/real/d/x"),
        ("--out=/data/x", "--out=/real/d/x"),
        ('{"to": "/data"}', '{"to": "/real/d"}'),
        ("/a:/data:/data/deep/er", "/a:/real/d:/real/e/er"),
        ("file:///data/x", "file:///real/d/x"),
        ("s3://bucket/data/x", "s3://bucket/data/x"),
        ("s3:///data", "s3:///data"),
        ("/database /data-2 /data.d", "/database /data-2 /data.d"),
        ("/home/data ./data ~/data", "/home/data ./data ~/data"),
    ],
)
def test_a_path_is_replaced_only_where_it_begins_one(text: str, result: str) -> None:
    assert real_paths(text, {"/data": Path("/real/d"), "/data/deep": Path("/real/e")}) == result
