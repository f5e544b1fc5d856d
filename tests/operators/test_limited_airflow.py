"""An administrator's limits, set as Airflow's environment, inside the real Airflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.object_store import ObjectStore
from tests.fake_kubernetes import FakeKubernetes
from tests.scoring_cluster import scoring_cluster
from tests.warm_airflow import WarmAirflow

pytestmark = pytest.mark.slow

BUCKET = "limited"
FOLDER = f"s3://{BUCKET}/data"

# Which option each task of the DAG "outside" runs into.
OUTSIDE = {
    "input": "allowed_inputs",
    "climbing": "allowed_inputs",
    "root": "allowed_inputs",
    "output": "allowed_outputs",
    "scores": "allowed_outputs",
    "model": "allowed_models",
    "hosts": "allowed_image_hosts",
    "connection": "allowed_connections",
    "interpreter": "allowed_pythons",
    "latest": "allowed_outputs",
    "plan": "allowed_outputs",
    "image": "allowed_pod_images",
    "deferred_image": "allowed_pod_images",
    "namespace": "allowed_namespaces",
    "account": "allowed_service_accounts",
    "secret": "allowed_secrets",
    "volume": "allowed_pod_arguments",
    "template": "allowed_pod_arguments",
    "divided.plan": "allowed_outputs",
}
LIMITS = {
    "allowed_inputs": f"{FOLDER}/",
    "allowed_outputs": FOLDER,
    "allowed_models": "builtin://",
    "allowed_image_hosts": "none",
    "allowed_connections": "clip_store",
    "allowed_pythons": "none",
    "allowed_pod_images": "scorer",
    "allowed_namespaces": "default",
    "allowed_service_accounts": "default",
    "allowed_secrets": "store",
    "allowed_pod_arguments": "config_file",
}


@pytest.fixture(scope="module")
def cluster(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    with scoring_cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.secrets["store"] = store.environment
        yield running


@pytest.fixture(scope="module")
def airflow(
    store: ObjectStore, cluster: FakeKubernetes, shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> WarmAirflow:
    for folder in ("data", "secret"):
        store.put_folder(shapes_dataset, f"s3://{BUCKET}/{folder}")
    pod = {
        "config_file": str(cluster.kubeconfig),
        "env_from": [{"secretRef": {"name": "store"}}],
        "startup_check_interval_seconds": 1,
    }
    variables = {
        "CLIP_TEST_FOLDER": FOLDER,
        "CLIP_TEST_POD": json.dumps(pod),
        "AIRFLOW_CONN_CLIP_STORE": store.airflow_connection,
        **{f"AIRFLOW__CLIP_OPERATOR__{name.upper()}": text for name, text in LIMITS.items()},
    }
    home = WarmAirflow(tmp_path_factory.mktemp("airflow"), variables, dags=Path(__file__).parent / "cases")
    home.migrate()
    return home


def run(airflow: WarmAirflow, *arguments: str) -> tuple[int, str]:
    log = airflow.folder / "command.log"
    code = airflow.start(arguments, log).wait()
    return code, log.read_text(errors="replace")


def keys(store: ObjectStore, prefix: str) -> list[str]:
    client: Any = store.client()
    return [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]


def test_a_task_outside_fails_for_good_and_nothing_is_read_or_written_there(
    airflow: WarmAirflow, store: ObjectStore, cluster: FakeKubernetes
) -> None:
    before = keys(store, "")
    code, log = run(airflow, "dags", "test", "outside")
    assert code != 0
    states = airflow.task_states("outside")
    assert {task: states[task] for task in OUTSIDE} == dict.fromkeys(OUTSIDE, "failed")
    assert airflow.task_states("outside", map_index=0) == {"mapped": "failed"}
    for task, option in OUTSIDE.items():
        words = rf"is outside what the administrator of this Airflow allows.* \[clip_operator\] {option} in"
        said = [line for line in log.splitlines() if re.search(words, line)]
        assert said, f"{task}: {option}"
    assert keys(store, "") == before
    assert cluster.created == []


def test_within_the_limits_steps_are_scored_whole_in_pods_and_divided(airflow: WarmAirflow, store: ObjectStore) -> None:
    code, log = run(airflow, "dags", "test", "within")
    assert code == 0, log[-6000:]
    for way in ("whole", "deferred", "divided"):
        assert f"data/within/{way}/captions_step1.jsonl.manifest.json" in keys(store, "data/within/")


def test_airflow_lists_the_options_and_what_they_are_set_to(airflow: WarmAirflow) -> None:
    code, listed = run(airflow, "config", "list", "--section", "clip_operator", "--include-descriptions", "--defaults")
    assert code == 0, listed
    for name in LIMITS:
        assert re.search(rf"^# ?{name} = ?$", listed, re.MULTILINE), listed
    code, value = run(airflow, "config", "get-value", "clip_operator", "allowed_inputs")
    assert (code, value.split()[-1]) == (0, f"{FOLDER}/")
