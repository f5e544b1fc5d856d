"""Manifests that an API server does not accept, and what it says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import pod

Manifest = dict[str, Any]
LABEL_VALUE_WORDS = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and"


def base(manifest: Manifest) -> dict[str, Any]:
    container: dict[str, Any] = manifest["spec"]["containers"][0]
    return container


def with_volumes(manifest: Manifest, names: list[str], mounts: list[tuple[str, str]], **more: str) -> None:
    manifest["spec"]["volumes"] = [{"name": name, "emptyDir": {}} for name in names]
    base(manifest)["volumeMounts"] = [{"name": name, "mountPath": path, **more} for name, path in mounts]


@pytest.mark.parametrize(
    ("spoil", "field", "words"),
    [
        (lambda m: m["metadata"].update(name="Not_A_Name"), "metadata.name", "a lowercase RFC 1123 subdomain must"),
        (lambda m: m["metadata"].update(name="x" * 254), "metadata.name", "must be no more than 253 characters"),
        (lambda m: m["metadata"].pop("name"), "metadata.name", "Required value: name or generateName is required"),
        (lambda m: m["metadata"].update(labels={"a": "b c"}), "metadata.labels", LABEL_VALUE_WORDS),
        (lambda m: m["metadata"].update(labels={"a": "-b"}), "metadata.labels", LABEL_VALUE_WORDS),
        (lambda m: m["metadata"].update(labels={"a": "b" * 64}), "metadata.labels", "must be no more than 63 char"),
        (lambda m: m["metadata"].update(labels={"a b": ""}), "metadata.labels", "name part must consist of alpha"),
        (lambda m: m["metadata"].update(labels={"a" * 64: ""}), "metadata.labels", "name part must be no more than 63"),
        (lambda m: m["metadata"].update(labels={"A/b": ""}), "metadata.labels", "prefix part a lowercase RFC 1123"),
        (lambda m: m["metadata"].update(annotations={"a b": ""}), "metadata.annotations", "name part must consist"),
        (lambda m: m["spec"].update(containers=[]), "spec.containers", "Required value"),
        (lambda m: m["spec"].update(restartPolicy="Maybe"), "spec.restartPolicy", 'Unsupported value: "Maybe": supp'),
        (lambda m: m["spec"].update(terminationGracePeriodSeconds=-1), "spec.terminationGracePeriodSeconds", "-1"),
        (lambda m: base(m).pop("image"), "spec.containers[0].image", "Required value"),
        (lambda m: base(m).update(image=" x"), "spec.containers[0].image", "must not have leading or trailing white"),
        (lambda m: base(m).pop("name"), "spec.containers[0].name", "Required value"),
        (lambda m: base(m).update(name="Base"), "spec.containers[0].name", "a lowercase RFC 1123 label must consist"),
        (
            lambda m: m["spec"]["containers"].append(base(m)),
            "spec.containers[1].name",
            'Duplicate value: "base"',
        ),
        (lambda m: base(m).update(imagePullPolicy="No"), "spec.containers[0].imagePullPolicy", "Unsupported value"),
        (
            lambda m: base(m).update(terminationMessagePolicy="No"),
            "spec.containers[0].terminationMessagePolicy",
            'supported values: "File", "FallbackToLogsOnError"',
        ),
        (
            lambda m: base(m).update(env=[{"name": "1X", "value": ""}]),
            "spec.containers[0].env[0].name",
            "a valid environment variable name must consist of",
        ),
        (
            lambda m: base(m).update(env=[{"name": "X", "value": "x", "valueFrom": {"fieldRef": {}}}]),
            "spec.containers[0].env[0].valueFrom",
            "may not be specified when `value` is not empty",
        ),
        (lambda m: base(m).update(env=[{"value": "x"}]), "spec.containers[0].env[0].name", "Required value"),
        (lambda m: base(m).update(name="x" * 64), "spec.containers[0].name", "must be no more than 63 characters"),
        (
            lambda m: m["spec"].update(volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "spec.volumes[0]",
            "may not specify more than 1 volume type",
        ),
        (
            lambda m: with_volumes(m, ["v"], [("v", "/a:b")]),
            "spec.containers[0].volumeMounts[0].mountPath",
            "must not contain ':'",
        ),
        (lambda m: with_volumes(m, [], [("", "/v")]), "spec.containers[0].volumeMounts[0].name", "Required value"),
        (
            lambda m: with_volumes(m, ["v"], [("v", "")]),
            "spec.containers[0].volumeMounts[0].mountPath",
            "Required value",
        ),
        (lambda m: with_volumes(m, ["v", "v"], []), "spec.volumes[1].name", 'Duplicate value: "v"'),
        (lambda m: m["spec"].update(volumes=[{"name": "v"}]), "spec.volumes[0]", "must specify a volume type"),
        (
            lambda m: with_volumes(m, ["v"], [("w", "/w")]),
            "spec.containers[0].volumeMounts[0].name",
            'Not found: "w"',
        ),
        (
            lambda m: with_volumes(m, ["v", "w"], [("v", "/v"), ("w", "/v")]),
            "spec.containers[0].volumeMounts[1].mountPath",
            'Invalid value: "/v": must be unique',
        ),
        (
            lambda m: base(m).update(resources={"requests": {"nvidia.com/gpu": "1"}}),
            "spec.containers[0].resources.requests",
            "must be equal to nvidia.com/gpu limit",
        ),
    ],
)
def test_an_invalid_manifest_is_refused_with_the_field_and_the_reason(
    cluster: FakeKubernetes, api: CoreV1Api, spoil: Callable[[Manifest], Any], field: str, words: str
) -> None:
    manifest = pod("one", "")
    spoil(manifest)
    with pytest.raises(ApiException) as caught:
        api.create_namespaced_pod("default", manifest)
    status = json.loads(caught.value.body)
    assert (caught.value.status, status["kind"], status["reason"]) == (422, "Status", "Invalid")
    assert [cause["field"] for cause in status["details"]["causes"]] == [field]
    assert status["message"].startswith(f'Pod "{manifest["metadata"].get("name", "")}" is invalid: {field}: ')
    assert words in status["message"]
    assert cluster.created == []


def test_all_that_is_wrong_is_said_at_once(api: CoreV1Api) -> None:
    manifest = pod("one", "", labels={"a": "b c"}, image="")
    with pytest.raises(ApiException, match=r"is invalid: \[metadata.labels: .*, spec.containers\[0\].image: "):
        api.create_namespaced_pod("default", manifest)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: m["metadata"].update(labels={"a": 1}), "cannot unmarshal number into Go struct field ObjectMeta"),
        (lambda m: base(m).update(env=[{"name": "X", "value": True}]), "cannot unmarshal bool into Go struct field"),
        (lambda m: base(m).update(args=[["x"]]), "cannot unmarshal array into Go struct field Container"),
        (lambda m: base(m).update(resources={"limits": {"memory": "4 GB"}}), "quantities must match the regular exp"),
        (lambda m: m["metadata"].update(namespace="other"), "the namespace of the provided object does not match"),
    ],
)
def test_values_of_another_type_are_no_pod_at_all(api: CoreV1Api, spoil: Callable[[Manifest], Any], words: str) -> None:
    manifest = pod("one", "")
    spoil(manifest)
    with pytest.raises(ApiException, match=words) as caught:
        api.create_namespaced_pod("default", manifest)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m["spec"].pop("restartPolicy"),
        lambda m: m["spec"].update(volumes=[{"name": "v", "projected": {"sources": []}}]),
        lambda m: base(m).update(restartPolicy="Always"),
        lambda m: m["spec"].update(initContainers=[{**base(m), "name": "first", "restartPolicy": "Never"}]),
        lambda m: with_volumes(m, ["v"], [("v", "/v")], subPath="x"),
        lambda m: base(m).update(livenessProbe={"exec": {"command": ["true"]}}),
        lambda m: base(m).update(env=[{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]),
    ],
)
def test_what_the_fake_cannot_do_is_refused_and_not_ignored(api: CoreV1Api, spoil: Callable[[Manifest], Any]) -> None:
    manifest = pod("one", "")
    spoil(manifest)
    with pytest.raises(ApiException, match="the fake Kubernetes has no") as caught:
        api.create_namespaced_pod("default", manifest)
    assert caught.value.status == 501


def test_labels_of_a_patch_are_checked_too(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "", labels={"a": "b"}))
    with pytest.raises(ApiException, match="a valid label must be"):
        api.patch_namespaced_pod("one", "default", {"metadata": {"labels": {"a": "not valid"}}})
    assert cluster.pod("one")["metadata"]["labels"] == {"a": "b"}


def test_a_valid_manifest_gets_the_defaults(api: CoreV1Api) -> None:
    created = api.create_namespaced_pod("default", pod("one", "", image="registry.test:5000/tool"))
    container = created.spec.containers[0]
    assert (created.spec.termination_grace_period_seconds, container.image_pull_policy) == (30, "Always")
    assert (container.termination_message_path, container.termination_message_policy) == (
        "/dev/termination-log",
        "File",
    )
    assert created.metadata.uid
    assert created.metadata.creation_timestamp
