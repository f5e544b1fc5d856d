"""The operator inside the real Airflow: what its tasks leave in the store and in XCom, and how they fail."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clip_operator.proof.manifest import EvaluationManifest, parse_manifest
from demo.airflow_home import AirflowHome, Command
from demo.object_store import ObjectStore
from tests.fake_kubernetes import FakeKubernetes
from tests.scoring_cluster import scoring_cluster
from tests.warm_airflow import WarmAirflow

pytestmark = pytest.mark.every_airflow

BUCKET = "operator"
FOLDER = f"s3://{BUCKET}/data"


@dataclass(frozen=True)
class Airflow:
    """An Airflow with the test DAGs, and the store its tasks read and write."""

    home: AirflowHome
    client: Any

    def test(self, dag_id: str) -> tuple[int, str]:
        """Run a DAG with ``airflow dags test``; return the exit code and the log."""
        log = self.home.folder / f"{dag_id}.log"
        code = self.home.start(["dags", "test", dag_id], log).wait()
        return code, log.read_text(errors="replace")

    def rows(self, uri: str) -> list[dict[str, Any]]:
        """Return the rows of a JSONL object."""
        return [json.loads(line) for line in self.bytes(uri).splitlines()]

    def bytes(self, uri: str) -> bytes:
        """Return an object."""
        key = uri.removeprefix(f"s3://{BUCKET}/")
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def manifest(self, uri: str) -> EvaluationManifest:
        """Return the manifest of an output."""
        manifest = parse_manifest(self.bytes(f"{uri}.manifest.json"))
        assert manifest is not None
        return manifest


@pytest.fixture(scope="module")
def cluster(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    with scoring_cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.secrets["store"] = store.environment
        yield running


@pytest.fixture(scope="module")
def airflow(
    store: ObjectStore, cluster: FakeKubernetes, shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Airflow:
    store.put_folder(shapes_dataset, FOLDER)
    client = store.client()
    many = (shapes_dataset / "captions.jsonl").read_bytes() * 500
    client.put_object(Bucket=BUCKET, Key="data/long.jsonl", Body=many)
    wrong = store.airflow_connection.replace(store.secret_key, "not-the-secret")
    variables = {
        "CLIP_TEST_FOLDER": FOLDER,
        "CLIP_TEST_POD": json.dumps(
            {
                "config_file": str(cluster.kubeconfig),
                "env_from": [{"secretRef": {"name": "store"}}],
                "startup_check_interval_seconds": 1,
            }
        ),
        "AIRFLOW_CONN_CLIP_STORE": store.airflow_connection,
        "AIRFLOW_CONN_WRONG_SECRET": wrong,
    }
    home = WarmAirflow(tmp_path_factory.mktemp("airflow"), variables, dags=Path(__file__).parent / "cases")
    home.migrate()
    return Airflow(home, client)


@pytest.fixture(scope="module")
def runs(airflow: Airflow) -> str:
    """The log of the DAG whose tasks succeed."""
    code, log = airflow.test("runs")
    assert code == 0, log[-6000:]
    return log


def test_a_task_writes_the_next_step_and_hands_on_the_name_of_its_column(airflow: Airflow, runs: str) -> None:
    xcoms = airflow.home.xcoms("runs")
    assert xcoms["first", "return_value"] == ["clip_score"]
    assert xcoms["first", "output_path"] == f"{FOLDER}/chain/captions_step1.jsonl"
    assert xcoms["first", "output_step"] == 1
    summary = xcoms["first", "summary"]
    assert summary["rows"]["total"] == 64
    assert summary["rows"]["failed"] == 4
    assert 0 < summary["scores"]["mean"] < 1
    assert summary["gates"] == {"passed": True, "breaches": [], "verdicts": []}
    assert xcoms["first", "manifest"] == {
        "uri": f"{FOLDER}/chain/captions_step1.jsonl.manifest.json",
        "aws_conn_id": "clip_store",
    }
    before, after = airflow.rows(f"{FOLDER}/captions.jsonl"), airflow.rows(xcoms["first", "output_path"])
    assert [list(row) for row in after] == [[*row, "clip_score", "why"] for row in before]


def test_the_manifest_names_the_task_instance_that_asked(airflow: Airflow, runs: str) -> None:
    requester = airflow.manifest(f"{FOLDER}/chain/captions_step1.jsonl").request.requested_by
    assert requester is not None
    assert (requester.dag_id, requester.task_id, requester.map_index) == ("runs", "first", -1)
    assert requester.run_id.startswith("manual__")


def test_latest_reads_the_highest_complete_step_and_templates_are_rendered(airflow: Airflow, runs: str) -> None:
    xcoms = airflow.home.xcoms("runs")
    assert xcoms["latest", "return_value"] == ["score_of_alt_text"]
    assert xcoms["latest", "output_path"] == f"{FOLDER}/chain/captions_step2.jsonl"
    request = airflow.manifest(xcoms["latest", "output_path"]).request
    assert request.input == f"{FOLDER}/chain/captions_step1.jsonl"
    assert (request.batch_size, request.device, request.image_root) == (16, None, FOLDER)


def test_another_interpreter_writes_the_same_bytes_and_its_log_is_the_tasks(airflow: Airflow, runs: str) -> None:
    written = airflow.rows(f"{FOLDER}/other-interpreter/captions_step1.jsonl")
    same = airflow.rows(f"{FOLDER}/chain/captions_step1.jsonl")
    assert [row["clip_score"] for row in written] == [row["clip_score"] for row in same]
    relayed = [line for line in runs.splitlines() if "clip_operator.operators.execution" in line]
    assert any("[warning" in line and "Row 14 has no score: image_unreadable" in line for line in relayed)
    assert any("[info" in line and "Scored 60 of 64 rows" in line for line in relayed)


def test_the_log_folds_away_all_but_the_result(airflow: Airflow, runs: str) -> None:
    log = runs[runs.index("starting task_id=first ") :]
    words = [
        "::group::What was asked",
        "input: s3://",
        "::endgroup::",
        "::group::Scoring",
        "Row 14 has no score",
        "::endgroup::",
        "60 of 64 rows have a score",
        f"See the report: {FOLDER}/chain/captions_step1.jsonl.report.html",
    ]
    place = 0
    for each in words:
        place = log.index(each, place) + len(each)


def test_mapped_tasks_each_write_their_own_step(airflow: Airflow, runs: str) -> None:
    for index, name in enumerate(["text", "alt"]):
        path = airflow.home.xcoms("runs", map_index=index)["mapped", "output_path"]
        assert path == f"{FOLDER}/mapped/{name}_step1.jsonl"
        requester = airflow.manifest(path).request.requested_by
        assert requester is not None
        assert requester.map_index == index


def test_pods_do_what_the_task_itself_does(
    airflow: Airflow, runs: str, cluster: FakeKubernetes, store: ObjectStore
) -> None:
    code, log = airflow.test("pods")
    assert code == 0, log[-6000:]
    xcoms = airflow.home.xcoms("pods")
    for task_id in ("watched", "deferred"):
        assert xcoms[task_id, "return_value"] == ["clip_score"]
        assert xcoms[task_id, "output_step"] == 1
        written = airflow.rows(xcoms[task_id, "output_path"])
        same = airflow.rows(f"{FOLDER}/chain/captions_step1.jsonl")
        assert [row["clip_score"] for row in written] == [row["clip_score"] for row in same]
    (mapped,) = [airflow.home.xcoms("pods", map_index=0)["mapped", "output_path"]]
    requester = airflow.manifest(mapped).request.requested_by
    assert requester is not None
    assert (requester.task_id, requester.map_index) == ("mapped", 0)

    created = {pod["metadata"]["labels"]["task_id"]: pod for pod in cluster.created}
    assert {"name": "TASK", "value": "watched"} in created["watched"]["spec"]["containers"][0]["env"]
    assert created["mapped"]["metadata"]["labels"]["map_index"] == "0"
    # Lines that the triggerer reads have the container's name and their level before them. None loses its level.
    # KubernetesPodOperator may read some of them twice, and on a busy machine not all.
    levelled = re.findall(r"\[warning +\] (?:\[base\] WARNING: )?Row 14 has no score", log)
    assert len(levelled) == log.count("Row 14 has no score") >= 1
    assert cluster.pods() == []
    assert store.secret_key not in log + json.dumps(cluster.created) + json.dumps(cluster.requests)


# What the log must say of each task in cases/refusals.py.
REFUSALS = {
    "mode": "execution_mode must be 'local' or 'kubernetes', not 'spaceship'",
    "gpus": "gpus: for a pod, which the task has not, because execution_mode is 'local'",
    "step": "step must be a whole number from 0 on, or 'latest', not 'newest'",
    "negative_step": "step must be a whole number from 0 on, or 'latest', not '-1'",
    "batch_size": "batch_size: .*must be a number of images from 1 to 65536, or auto",
    "on_error": "on_error: Input should be 'null', 'zero' or 'fail'",
    "model_name": "model_name must not be empty",
    "min_auc": "min_auc: must be a number from 0 to 1, not 'much'",
    "on_gate": "on_gate must be 'fail' or 'mark', not 'ignore'",
    "min_score": "min_score",
    "cache_type": "cache_type='pickle': .*pickle",
    "cache_path": "cache_path must be a string and must not be empty",
    "prefix": "file_name_prefix must not hold a slash",
    "column": "captions.jsonl has no column 'caption'; its columns are 'id', 'image_path', 'text'",
    "bucket": "the bucket 'no-such-bucket' does not exist",
    "unknown_connection": "there is no Airflow connection aws_conn_id='no_such_connection'",
    "wrong_secret": r"the S3 credentials were refused|access denied",
    "interpreter": "python='/no/such/python' cannot be run: No such file or directory",
    "column_in_other_interpreter": "captions.jsonl has no column 'caption'",
    "password": "cache_path='s3://b/steps': a URI must not hold a password",
    "no_step": "there is no step to read",
}


def test_what_is_wrong_is_refused_in_words_and_leaves_nothing_behind(airflow: Airflow, store: ObjectStore) -> None:
    code, log = airflow.test("refusals")
    assert code == 1
    assert airflow.home.task_states("refusals") == dict.fromkeys(REFUSALS, "failed")
    xcoms = airflow.home.xcoms("refusals")
    for task_id, words in REFUSALS.items():
        start = log.index(f"starting task_id={task_id} ")
        part = log[start : log.find("starting task_id=", start + 1)]
        assert re.search(words, part), f"{task_id}:\n{part}"
        assert "See:   docs/troubleshooting.md" in part
        assert re.search(words, xcoms[task_id, "failure"]["reason"])
    assert airflow.client.list_objects_v2(Bucket=BUCKET, Prefix="data/refused")["KeyCount"] == 0
    assert store.secret_key not in log
    assert "hush/rendered" not in log


@pytest.mark.parametrize("dag_id", ["long_in_process", "long_other_interpreter", "long_pod"])
def test_a_task_that_is_terminated_stops_its_work_and_fails(
    airflow: Airflow, cluster: FakeKubernetes, dag_id: str
) -> None:
    log = airflow.home.folder / f"{dag_id}.log"
    process = airflow.home.start(["dags", "test", dag_id], log)
    wait_for(log, "Row 14 has no score", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) != 0
    assert "stopped before" in log.read_text()
    assert airflow.home.task_states(dag_id) == {"score": "failed"}
    cluster.wait_until(lambda seen: seen.pods() == [])
    left = airflow.client.list_objects_v2(Bucket=BUCKET, Prefix="data/long/").get("Contents", [])
    assert not [item["Key"] for item in left if ".resume/" not in item["Key"]]


def test_a_task_that_takes_too_long_deletes_its_pod_and_fails(airflow: Airflow, cluster: FakeKubernetes) -> None:
    code, log = airflow.test("endless_pod")
    assert code == 1
    assert "AirflowTaskTimeout" in log
    assert airflow.home.task_states("endless_pod") == {"score": "failed"}
    cluster.wait_until(lambda seen: seen.pods() == [])


def test_no_secret_is_in_anything_that_airflow_or_the_store_keeps(
    airflow: Airflow, runs: str, cluster: FakeKubernetes, store: ObjectStore
) -> None:
    """Of all the runs above: logs, rendered templates, XComs and whatever else is in the database; every object."""
    kept = {path: path.read_bytes() for path in airflow.home.folder.rglob("*") if path.is_file()}
    assert any(path.suffix == ".db" and b"rendered_fields" in content for path, content in kept.items())
    assert runs.encode() in kept.values()
    secret = store.secret_key.encode()
    assert [path for path, content in kept.items() if secret in content or b"hush/rendered" in content] == []
    pages = airflow.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    assert any(key.endswith(".manifest.json") for key in keys)
    assert [key for key in keys if secret in airflow.bytes(f"s3://{BUCKET}/{key}")] == []
    assert store.secret_key not in json.dumps(cluster.created) + json.dumps(cluster.requests)


def wait_for(log: Path, words: str, process: Command) -> None:
    """Return when the words are in the log of a process that is still running."""
    deadline = time.monotonic() + 120
    while words not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
