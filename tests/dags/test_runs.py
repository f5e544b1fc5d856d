"""The DAGs in dags/ do their job when the real Airflow runs them on the demo's bucket."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.airflow_home import AirflowHome
from demo.object_store import ObjectStore
from tests.conftest import SHAPES
from tests.fake_kubernetes import FakeKubernetes
from tests.scoring_cluster import scoring_cluster
from tests.warm_airflow import WarmAirflow

pytestmark = pytest.mark.slow

BUCKET = "clip-demo"
HERE = f"s3://{BUCKET}/here/captions_step1.jsonl"
LINEAGE = "lineage.json"
POD = {"image": "scorer:1", "namespace": "ml", "env_from": [{"secretRef": {"name": "clip-s3"}}]}


@pytest.fixture(scope="module")
def client(store: ObjectStore, shapes_dataset: Path) -> Any:
    """The S3 server with the demo's bucket and data set in it."""
    store.put_folder(shapes_dataset, f"s3://{BUCKET}/shapes")
    return store.client()


@pytest.fixture(scope="module")
def cluster(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    with scoring_cluster(tmp_path_factory.mktemp("cluster"), store.environment) as running:
        running.claims.add("clip-models")  # which clip_on_gpu tells its reader to make
        running.secrets["clip-s3"] = store.environment
        running.namespaces.add("ml")
        yield running


@pytest.fixture(scope="module")
def airflow(
    client: Any, store: ObjectStore, cluster: FakeKubernetes, tmp_path_factory: pytest.TempPathFactory
) -> AirflowHome:
    kubernetes = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(cluster.kubeconfig)}}
    variables = {
        "AIRFLOW_CONN_AWS_DEFAULT": store.airflow_connection,
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(kubernetes),
        "AIRFLOW_VAR_CLIP_POD": json.dumps(POD),
        "AIRFLOW_VAR_CLIP_GPU_IMAGE": "scorer-with-access:1",
    }
    folder = tmp_path_factory.mktemp("airflow")
    transport = {"type": "file", "log_file_path": str(folder / LINEAGE), "append": True}
    settings = {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",  # what is paused does not wait for assets
    }
    home = WarmAirflow(folder, {**variables, **settings})
    home.migrate()
    return home


def run(airflow: AirflowHome, dag_id: str, **params: Any) -> tuple[int, str]:
    log = airflow.folder / "run.log"
    code = airflow.start(["dags", "test", dag_id, "--conf", json.dumps(params)], log).wait()
    return code, log.read_text(errors="replace")


def rows(client: Any, key: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get_object(Bucket=BUCKET, Key=key)["Body"].read().splitlines()]


# What is filled in on the evaluation DAG's form.
COLUMNS = {
    "cache_path": f"s3://{BUCKET}/here",
    "output_key": "agreement",
    "cosine_key": "cosine",
    "clipscore_key": "clipscore",
    "percentile_key": "percentile",
    "sentence_key": "worst",
    "min_score": "threshold",
    "keep_top": 0.5,
}


@pytest.fixture(scope="module")
def xcoms(airflow: AirflowHome) -> dict[tuple[str, str], Any]:
    """What a run of the evaluation DAG hands on, with some of its form's fields filled in."""
    gates = {"min_mean_score": 0.5, "min_auc": 0.8, "max_below_threshold": 0.3}
    code, log = run(airflow, "clip_evaluation", batch_size="7", **COLUMNS, **gates)
    assert code == 0, log[-4000:]
    assert airflow.task_states("clip_evaluation") == {"score": "success"}
    return airflow.xcoms("clip_evaluation")


@pytest.mark.every_airflow
def test_the_evaluation_dag_scores_a_step_with_the_parameters_of_its_form(
    xcoms: dict[tuple[str, str], Any], client: Any
) -> None:
    assert xcoms["score", "return_value"] == ["agreement"]
    added = ["agreement", "clip_error", "cosine", "clipscore", "worst", "worst_score", "percentile"]
    step = rows(client, "here/captions_step1.jsonl")
    assert [list(row)[-7:] for row in step] == [added] * 64
    summary = xcoms["score", "summary"]
    scores = sorted((row["agreement"] for row in step if row["agreement"] is not None), reverse=True)
    least = max(summary["calibration"]["threshold"], scores[len(scores) // 2 - 1])
    kept = [row for row in step if (row["agreement"] or 0) >= least]
    assert rows(client, "here/captions_filtered_step1.jsonl") == kept
    assert (summary["filtered"]["rows"], summary["filtered"]["output_path"]) == (
        len(kept),
        f"s3://{BUCKET}/here/captions_filtered_step1.jsonl",
    )
    assert xcoms["score", "manifest"] == {"uri": f"{HERE}.manifest.json", "aws_conn_id": "aws_default"}


@pytest.mark.every_airflow
def test_the_dag_that_waits_for_scores_is_to_run_and_knows_what_they_are(
    airflow: AirflowHome, xcoms: dict[tuple[str, str], Any]
) -> None:
    with closing(sqlite3.connect(airflow.folder / "airflow.db")) as database:
        query = "SELECT event.extra FROM asset_event event JOIN asset ON asset.id = event.asset_id WHERE asset.uri = ?"
        ((extra,),) = database.execute(query, (HERE,)).fetchall()
        waiting = database.execute("SELECT target_dag_id FROM asset_dag_run_queue").fetchall()
    assert json.loads(extra) == {"output_path": HERE, "output_step": 1, **xcoms["score", "summary"]}
    assert waiting == [("clip_scores_ready",)]


@pytest.mark.every_airflow
def test_openlineage_is_told_what_was_read_and_written_and_how_good_it_is(
    airflow: AirflowHome, xcoms: dict[tuple[str, str], Any]
) -> None:
    events = [json.loads(line) for line in (airflow.folder / LINEAGE).read_text().splitlines()]
    written = [(event["inputs"], event["outputs"][0]) for event in events if event.get("outputs")]
    (source,), told = next(each for each in written if each[1]["name"] == "here/captions_step1.jsonl")
    assert (source["namespace"], source["name"]) == (f"s3://{BUCKET}", "shapes/captions.jsonl")
    assert told["facets"]["dataQualityMetrics"]["columnMetrics"]["agreement"]["count"] == 60


def test_the_evaluation_dag_fails_for_good_when_the_scores_are_below_the_limit(
    airflow: AirflowHome, xcoms: dict[tuple[str, str], Any]
) -> None:
    """The step is there already, and is judged again."""
    code, log = run(airflow, "clip_evaluation", min_mean_score=0.9, **COLUMNS)
    assert code == 1
    assert airflow.task_states("clip_evaluation") == {"score": "failed"}
    assert "below min_mean_score=0.9" in log
    summary = airflow.xcoms("clip_evaluation")["score", "summary"]
    assert summary["gates"]["passed"] is False
    assert summary["rows"]["scored"] == 60


def test_the_evaluation_dag_refuses_a_parameter_that_its_form_would_not_take(airflow: AirflowHome) -> None:
    code, log = run(airflow, "clip_evaluation", on_error="ignore")
    assert code == 1
    assert "on_error" in log


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("step", "newest", "step must be a whole number from 0 on, or 'latest', not 'newest'"),
        ("batch_size", "many", "batch_size: must be a number of images from 1 to 65536, or auto, not 'many'"),
        ("min_score", "70 %", "min_score: give a number from 0 to 1, or 'threshold' for the suggested one, not '70 %'"),
    ],
)
def test_what_is_typed_into_a_field_is_judged_by_the_operator_in_its_words(
    airflow: AirflowHome, client: Any, field: str, value: str, words: str
) -> None:
    code, log = run(airflow, "clip_evaluation", cache_path=f"s3://{BUCKET}/judged", **{field: value})
    assert code == 1
    assert airflow.task_states("clip_evaluation") == {"score": "failed"}
    assert words in log


def test_the_daily_dag_scores_the_demos_data_set_or_what_its_variable_says(airflow: AirflowHome, client: Any) -> None:
    assert run(airflow, "clip_daily")[0] == 0
    place = {"first_entry_file_name": f"s3://{BUCKET}/shapes/captions.jsonl", "cache_path": f"s3://{BUCKET}/variable"}
    elsewhere = replace(airflow, variables={**airflow.variables, "AIRFLOW_VAR_CLIP_DAILY": json.dumps(place)})
    code, log = run(elsewhere, "clip_daily")
    assert code == 0, log[-4000:]
    assert rows(client, "variable/captions_step1.jsonl") == rows(client, "shapes/daily/captions_step1.jsonl")


def test_the_chain_leaves_every_step_where_it_is(airflow: AirflowHome, client: Any) -> None:
    code, log = run(airflow, "clip_two_captions")
    assert code == 0, log[-4000:]
    first, second = (rows(client, f"shapes/two-captions/captions_step{step}.jsonl") for step in (1, 2))
    assert [{k: v for k, v in row.items() if k != "clip_score_alt"} for row in second] == first
    assert sum(row["clip_score_alt"] is not None for row in second) == 62
    assert airflow.xcoms("clip_two_captions")["score_alt_text", "output_step"] == 2


def test_the_evaluation_dag_runs_in_a_pod_if_its_form_says_so(
    airflow: AirflowHome, client: Any, cluster: FakeKubernetes
) -> None:
    code, log = run(airflow, "clip_evaluation", cache_path=f"s3://{BUCKET}/pod", execution_mode="kubernetes")
    assert code == 0, log[-4000:]
    assert airflow.task_states("clip_evaluation") == {"score": "success"}
    (pod,) = cluster.created
    assert pod["metadata"]["namespace"] == "ml"
    assert sum(row["clip_score"] is not None for row in rows(client, "pod/captions_step1.jsonl")) == 60


def test_the_gpu_dag_scores_without_a_gpu_if_it_is_told_to(
    airflow: AirflowHome, client: Any, cluster: FakeKubernetes
) -> None:
    code, log = run(airflow, "clip_on_gpu", model_name=SHAPES, gpus=0)
    assert code == 0, log[-4000:]
    assert airflow.xcoms("clip_on_gpu")["score", "return_value"] == ["clip_score"]
    assert "nvidia.com/gpu" not in json.dumps(cluster.created[-1])
    assert sum(row["clip_score"] is not None for row in rows(client, "shapes/on-gpu/captions_step1.jsonl")) == 60


def test_the_sharded_dag_runs_in_pods_if_its_form_says_so(
    airflow: AirflowHome, client: Any, cluster: FakeKubernetes
) -> None:
    before = len(cluster.created)
    code, log = run(airflow, "clip_in_shards", cache_path=f"s3://{BUCKET}/pods", shards=1, execution_mode="kubernetes")
    assert code == 0, log[-4000:]
    assert len(cluster.created) == before + 1
    assert sum(row["clip_score"] is not None for row in rows(client, "pods/captions_step1.jsonl")) == 60
