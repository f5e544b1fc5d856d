"""A user of a whole Airflow, with its executor and database, runs the DAGs over the REST API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import parse_manifest
from clip_operator.request import EvaluationRequest
from clip_operator.storage import S3Access, Storage
from demo.dataset import ROWS
from demo.object_store import ObjectStore
from tests.conftest import SHAPES
from tests.integration.airflow_cluster import AirflowCluster

pytestmark = pytest.mark.slow

BUCKET = "clip-cluster"
STEP = "captions_step1.jsonl"
ENDS = ("", ".manifest.json", ".report.html", ".samples.json", ".worst-rows.csv")
"""Of the names of what a finished step leaves."""
SECONDS = 180
"""For one run, on a machine that is busy with other tests."""
PLAN, SCORE, MERGE = (f"clip_evaluation.{task}" for task in ("plan", "score", "merge"))


@pytest.fixture(scope="module")
def client(store: ObjectStore, shapes_dataset: Path) -> Any:
    """The S3 server with the demo's data set in a bucket of this module's."""
    store.put_folder(shapes_dataset, f"s3://{BUCKET}/shapes")
    return store.client()


@pytest.fixture(scope="module")
def in_shards(airflow: AirflowCluster, client: Any) -> str:
    """A run with seven shards that has ended well, while another DAG waited for scores."""
    airflow.unpause("clip_scores_ready")
    run = airflow.trigger("clip_in_shards", **where("shapes", "in-shards"))
    assert airflow.wait(run, SECONDS) == "success"
    return run


@pytest.mark.every_airflow
def test_seven_task_instances_write_what_one_evaluation_would_have_written(
    airflow: AirflowCluster, client: Any, store: ObjectStore, in_shards: str
) -> None:
    run = in_shards
    states = airflow.states(run)
    assert set(states.values()) == {"success"}
    assert sorted(states) == sorted([(PLAN, -1), *((SCORE, index) for index in range(7)), (MERGE, -1)])
    shards = [airflow.task_instances(run)[SCORE, index] for index in range(7)]
    labels = [shard["rendered_map_index"] for shard in shards]
    assert labels[0] == "1 of 7, rows 1\N{EN DASH}8"
    assert [label.split(",")[0] for label in labels] == [f"{number} of 7" for number in range(1, 8)]
    assert labels[-1].endswith(f"\N{EN DASH}{ROWS}")
    assert most_at_a_time(shards) == 2

    assert airflow.xcom(run, MERGE) == ["clip_score"]
    assert airflow.xcom(run, MERGE, "output_path") == f"s3://{BUCKET}/in-shards/{STEP}"
    # Not by the DAG clip_evaluation: its resume points lie elsewhere, so it fills other batches, and the scores' last
    # digits differ.
    request = EvaluationRequest(
        input=f"s3://{BUCKET}/shapes/captions.jsonl",
        output=f"s3://{BUCKET}/one/{STEP}",
        model=SHAPES,
        error_key="clip_error",
        resume_point_rows=8,
    )
    session = boto3.session.Session(store.access_key, store.secret_key, region_name="us-east-1")
    one = evaluate(request, Storage(S3Access(session, store.endpoint_url)))
    assert body(client, f"in-shards/{STEP}") == body(client, f"one/{STEP}")
    merged = parse_manifest(body(client, f"in-shards/{STEP}.manifest.json"))
    assert merged is not None
    assert (merged.rows, merged.scores) == (one.rows, one.scores)
    assert keys(client, "in-shards/") == [f"in-shards/{STEP}{end}" for end in ENDS]


@pytest.mark.every_airflow
def test_a_dag_that_waits_for_scores_runs_when_they_are_ready(airflow: AirflowCluster, in_shards: str) -> None:
    run = airflow.wait_for_run("clip_scores_ready", SECONDS)
    assert airflow.wait(run, SECONDS) == "success"
    assert airflow.get(run)["run_type"] == "asset_triggered"
    expected = {("judge", -1): "success", ("curate", -1): "success", ("look_into_it", -1): "skipped"}
    assert airflow.states(run) == expected
    assert airflow.xcom(run, "curate") == [airflow.xcom(in_shards, MERGE, "output_path")]


def test_one_failed_shard_is_mended_and_cleared_without_the_others_running_again(
    airflow: AirflowCluster, client: Any, shapes_dataset: Path
) -> None:
    put_good_rows(client, shapes_dataset, "good")
    missing = "images/00032.jpg"
    client.delete_object(Bucket=BUCKET, Key=f"good/{missing}")

    run = airflow.trigger("clip_in_shards", **where("good", "mended"), shards=3, on_error="fail")
    airflow.wait_for_task(run, SCORE, "up_for_retry", SECONDS, map_index=1)
    airflow.fail(run, SCORE, 1)  # as one who knows that another try will not help, and does not wait for it
    assert airflow.wait(run, SECONDS) == "failed"
    before = airflow.task_instances(run)
    states = [before[SCORE, index]["state"] for index in range(3)]
    assert states == ["success", "failed", "success"]
    assert before[MERGE, -1]["state"] == "upstream_failed"
    assert missing in airflow.log(run, SCORE, 1, attempt=before[SCORE, 1]["try_number"])
    assert f"mended/{STEP}" not in keys(client, "mended/")

    client.put_object(Bucket=BUCKET, Key=f"good/{missing}", Body=(shapes_dataset / missing).read_bytes())
    assert sorted(airflow.clear(run, SCORE, 1)) == [(MERGE, -1), (SCORE, 1)]
    assert airflow.wait(run, SECONDS) == "success"
    after = airflow.task_instances(run)
    for key in [(PLAN, -1), (SCORE, 0), (SCORE, 2)]:
        assert (after[key]["try_number"], after[key]["start_date"]) == (1, before[key]["start_date"])
    assert after[SCORE, 1]["try_number"] == before[SCORE, 1]["try_number"] + 1
    found = scores(client, f"mended/{STEP}")
    assert len(found) == 60
    assert None not in found
    assert keys(client, "mended/") == [f"mended/{STEP}{end}" for end in ENDS]


def test_a_dag_triggered_over_the_rest_api_scores_a_step(airflow: AirflowCluster, client: Any) -> None:
    run = airflow.trigger("clip_evaluation", **where("shapes", "whole"))
    assert airflow.wait(run, SECONDS) == "success"
    assert airflow.states(run) == {("score", -1): "success"}
    assert airflow.xcom(run, "score") == ["clip_score"]
    assert airflow.xcom(run, "score", "output_path") == f"s3://{BUCKET}/whole/{STEP}"
    assert f"Scored 60 of {ROWS} rows" in airflow.log(run, "score")
    assert len(scores(client, f"whole/{STEP}")) == ROWS
    assert sum(score is not None for score in scores(client, f"whole/{STEP}")) == 60


def where(dataset: str, folder: str) -> dict[str, str]:
    return {
        "first_entry_file_name": f"s3://{BUCKET}/{dataset}/captions.jsonl",
        "cache_path": f"s3://{BUCKET}/{folder}",
    }


def put_good_rows(client: Any, dataset: Path, folder: str) -> None:
    """Put a data set of the demo's rows that can be scored."""
    lines = (dataset / "captions.jsonl").read_bytes().splitlines(keepends=True)
    good = [line for line in lines if json.loads(line)["label"] in ("match", "mismatch")]
    client.put_object(Bucket=BUCKET, Key=f"{folder}/captions.jsonl", Body=b"".join(good))
    for image in (dataset / "images").iterdir():
        client.put_object(Bucket=BUCKET, Key=f"{folder}/images/{image.name}", Body=image.read_bytes())


def most_at_a_time(instances: list[dict[str, Any]]) -> int:
    """Return how many of these task instances ran at the same time at most."""
    starts = [each["start_date"] for each in instances]
    return max(len([each for each in instances if each["start_date"] <= start < each["end_date"]]) for start in starts)


def body(client: Any, key: str) -> bytes:
    return bytes(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def scores(client: Any, key: str) -> list[float | None]:
    return [json.loads(line)["clip_score"] for line in body(client, key).splitlines()]


def keys(client: Any, prefix: str) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]
