"""The pages on Kubernetes: pods are built of what they show, and what they select and configure is there."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient, Configuration

from clip_operator.provider import provider_info
from tests.docs.pages import Block, blocks, text_of
from tests.operators.test_pod import IMAGE, built

PAGES = ("docs/cluster.md", "docs/kubernetes.md")
RECIPES = [block for block in blocks("json") if block.page in PAGES]
DOCUMENTS = [document for block in blocks("yaml") if block.page in PAGES for document in yaml.safe_load_all(block.text)]
OBJECTS = [document for document in DOCUMENTS if "kind" in document]
CLIENT = ApiClient(configuration=Configuration())


def missing(wanted: Any, there: Any) -> bool:
    """Tell whether a structure has something that another one has not, or has otherwise."""
    if isinstance(wanted, dict) and isinstance(there, dict):
        return any(missing(value, there.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(there, list):
        return any(all(missing(item, other) for other in there) for item in wanted)
    return bool(wanted != there)


def of_recipe(block: Block) -> dict[str, Any]:
    return built({**IMAGE, **json.loads(block.text)})


def shown_pods() -> Iterator[Any]:
    """Yield what Python in the documentation gives as ``pod``, with where it stands."""
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.keyword) and node.arg == "pod":
                yield pytest.param(ast.literal_eval(node.value), id=f"{block.where}+{node.lineno}")


@pytest.mark.parametrize("block", RECIPES, ids=lambda block: block.where)
def test_a_pod_is_built_of_a_recipe_and_has_all_that_it_says(block: Block) -> None:
    recipe, manifest = json.loads(block.text), of_recipe(block)
    spec, metadata = manifest["spec"], manifest["metadata"]
    [container] = spec["containers"]
    places = {
        "annotations": metadata["annotations"],
        "container_resources": container["resources"],
        "init_containers": spec["initContainers"],
        "labels": metadata["labels"],
        "pod_template_dict": manifest,
        "priority_class_name": spec.get("priorityClassName"),
        "security_context": spec["securityContext"],
        "volume_mounts": container["volumeMounts"],
        "volumes": spec["volumes"],
    }
    assert [name for name in recipe if missing(recipe[name], places[name])] == []


@pytest.mark.parametrize("pod", list(shown_pods()))
def test_a_pod_is_built_of_what_python_gives(pod: Mapping[str, Any]) -> None:
    assert not missing(pod.get("container_resources", {}), built(pod, gpus=1)["spec"]["containers"][0]["resources"])


def test_objects_for_the_cluster_are_what_the_kubernetes_client_knows() -> None:
    assert {of["kind"] for of in OBJECTS} == {"PriorityClass", "PodDisruptionBudget", "Role", "RoleBinding"}
    for of in OBJECTS:
        read = CLIENT.deserialize(SimpleNamespace(data=json.dumps(of)), f"V1{of['kind']}")
        assert CLIENT.sanitize_for_serialization(read) == of


def test_what_selects_pods_selects_those_of_the_operator() -> None:
    labels = built(IMAGE)["metadata"]["labels"]
    [budget] = [of["spec"] for of in OBJECTS if of["kind"] == "PodDisruptionBudget"]
    spread = [each for block in RECIPES for each in of_recipe(block)["spec"].get("topologySpreadConstraints", ())]
    assert spread
    for selector in (budget["selector"], *(constraint["labelSelector"] for constraint in spread)):
        assert selector["matchLabels"].items() <= labels.items()
    for constraint in spread:
        assert set(constraint["matchLabelKeys"]) <= set(labels)
    assert isinstance(budget["minAvailable"], int)  # Kubernetes has no other for pods without a controller


def test_classes_that_recipes_name_are_those_that_they_make() -> None:
    made = {of["metadata"]["name"] for of in OBJECTS if of["kind"] == "PriorityClass"}
    assert {json.loads(block.text).get("priority_class_name") for block in RECIPES} - {None} == made


def test_values_for_helm_configure_options_that_there_are() -> None:
    [values] = [document for document in DOCUMENTS if "kind" not in document]
    assert set(values["config"]["clip_operator"]) <= set(provider_info()["config"]["clip_operator"]["options"])
    assert yaml.safe_load(values["extraEnvFrom"]) == [{"secretRef": {"name": "airflow-clip"}}]
    connection = values["secret"][0]["envName"].removeprefix("AIRFLOW_CONN_").lower()
    assert f'aws_conn_id="{connection}"' in text_of("docs/cluster.md")


@pytest.mark.parametrize("block", RECIPES, ids=lambda block: block.where)
def test_the_restricted_standard_admits_every_container_of_a_recipe(block: Block) -> None:
    spec = of_recipe(block)["spec"]
    for container in (*spec["initContainers"], *spec["containers"]):
        context = container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
