"""One step scored by many task instances, inside the real Airflow: it ends as if one had done it all."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clip_operator.proof.manifest import EvaluationManifest, parse_manifest
from demo.airflow_home import AirflowHome
from demo.object_store import ObjectStore
from tests.fake_kubernetes import FakeKubernetes
from tests.scoring_cluster import scoring_cluster
from tests.warm_airflow import WarmAirflow

pytestmark = pytest.mark.slow

BUCKET = "sharded"
FOLDER = f"s3://{BUCKET}/data"
ENDS = ("", ".manifest.json", ".report.html", ".samples.json", ".worst-rows.csv")
SEVEN = [f"seven/captions_step1.jsonl{suffix}" for suffix in ENDS]


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

    def instances(self, dag_id: str, task_id: str) -> list[tuple[int, str, str | None]]:
        """Return map index, state and rendered map index of a task's instances in the latest run of a DAG."""
        query = """
            SELECT map_index, state, rendered_map_index FROM task_instance WHERE dag_id = :dag AND task_id = :task
            AND run_id = (SELECT run_id FROM dag_run WHERE dag_id = :dag ORDER BY id DESC LIMIT 1) ORDER BY map_index
        """
        with closing(sqlite3.connect(self.home.folder / "airflow.db")) as database:
            return database.execute(query, {"dag": dag_id, "task": task_id}).fetchall()

    def states(self, dag_id: str, task_id: str) -> list[str]:
        """Return how a task's instances ended, in the order of their map indexes."""
        return [state for _, state, _ in self.instances(dag_id, task_id)]

    def bytes(self, key: str) -> bytes:
        """Return an object below the folder of the data."""
        return bytes(self.client.get_object(Bucket=BUCKET, Key=f"data/{key}")["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        """Return the names of the objects in a folder of the folder of the data."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"data/{prefix}/").get("Contents", [])
        return [item["Key"].removeprefix("data/") for item in found]

    def manifest(self, key: str) -> EvaluationManifest:
        """Return the manifest of an output."""
        manifest = parse_manifest(self.bytes(f"{key}.manifest.json"))
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
    pod = {
        "config_file": str(cluster.kubeconfig),
        "env_from": [{"secretRef": {"name": "store"}}],
        "startup_check_interval_seconds": 1,
    }
    variables = {
        "CLIP_TEST_FOLDER": FOLDER,
        "CLIP_TEST_POD": json.dumps(pod),
        "AIRFLOW_CONN_CLIP_STORE": store.airflow_connection,
    }
    home = WarmAirflow(tmp_path_factory.mktemp("airflow"), variables, dags=Path(__file__).parent / "cases")
    home.migrate()
    return Airflow(home, store.client())


@pytest.fixture(scope="module")
def runs(airflow: Airflow) -> str:
    """The log of the DAG whose steps succeed."""
    code, log = airflow.test("shards")
    assert code == 0, log[-6000:]
    return log


def test_seven_task_instances_write_the_bytes_and_the_manifest_of_one(airflow: Airflow, runs: str) -> None:
    assert airflow.states("shards", "seven.score") == ["success"] * 7
    assert airflow.bytes("seven/captions_step1.jsonl") == airflow.bytes("whole/captions_step1.jsonl")
    whole, merged = airflow.manifest("whole/captions_step1.jsonl"), airflow.manifest("seven/captions_step1.jsonl")
    assert merged.rows == whole.rows
    assert merged.scores == whole.scores
    assert merged.input == whole.input
    assert merged.request.fingerprint() == whole.request.model_copy(update={"output": merged.output.uri}).fingerprint()
    assert airflow.keys("seven") == SEVEN


@pytest.mark.every_airflow
def test_the_merge_hands_on_what_a_single_task_does(airflow: Airflow, runs: str) -> None:
    xcoms = airflow.home.xcoms("shards")
    assert xcoms["seven.merge", "return_value"] == xcoms["whole", "return_value"] == ["clip_score"]
    assert xcoms["seven.merge", "output_path"] == f"{FOLDER}/seven/captions_step1.jsonl"
    assert xcoms["seven.merge", "output_step"] == 1
    for part in ("rows", "scores", "calibration", "model"):
        assert xcoms["seven.merge", "summary"][part] == xcoms["whole", "summary"][part]
    assert xcoms["report", "return_value"] == [["clip_score"], xcoms["whole", "summary"]["rows"]]


def test_gates_are_judged_of_the_whole_step_by_the_merge(airflow: Airflow, runs: str) -> None:
    gates = airflow.home.xcoms("shards")["seven.merge", "summary"]["gates"]
    assert gates["passed"] is False
    assert len(gates["breaches"]) == 1
    assert gates["breaches"][0].partition(" by ")[0].endswith("below min_auc=0.99")
    shard = airflow.home.xcoms("shards", map_index=2)["seven.score", "summary"]
    assert shard["gates"] == {"passed": True, "breaches": [], "verdicts": []}
    assert runs.count("The step does not pass its gates") == 1


@pytest.mark.every_airflow
def test_a_mapped_instance_is_called_by_its_rows_and_hands_on_little(airflow: Airflow, runs: str) -> None:
    labels = [label for _, _, label in airflow.instances("shards", "seven.score")]
    assert labels[0] is not None
    assert re.fullmatch("1 of 7, rows 1\N{EN DASH}[0-9]+", labels[0])
    assert labels[-1] is not None
    assert re.fullmatch("7 of 7, rows [0-9]+\N{EN DASH}64", labels[-1])
    xcoms = airflow.home.xcoms("shards", map_index=2)
    assert len(json.dumps([value for (task_id, _), value in xcoms.items() if task_id == "seven.score"])) < 2000


def test_part_files_are_the_shards_own_tables_and_the_next_step_reads_them_as_one(airflow: Airflow, runs: str) -> None:
    parts = [key for key in airflow.keys("parts") if "/part-" in key]
    assert len(parts) == 2
    assert b"".join(map(airflow.bytes, parts)) == airflow.bytes("whole/captions_step1.jsonl")
    xcoms = airflow.home.xcoms("shards")
    assert xcoms["in_parts.merge", "output_path"] == f"{FOLDER}/parts/captions_step1/part-*.jsonl"
    assert xcoms["in_parts.merge", "output_step"] == 1
    assert xcoms["latest.merge", "output_step"] == 2
    rows = [json.loads(line) for line in airflow.bytes("parts/captions_step2.jsonl").splitlines()]
    assert len(rows) == 64
    assert [list(row)[-3:] for row in rows] == [["why", "score_of_alt_text", "percentile"]] * 64
    kept = [row for row in rows if (row["score_of_alt_text"] or 0) >= 0.5]
    filtered = xcoms["latest.merge", "summary"]["filtered"]
    assert filtered == {
        "output_path": f"{FOLDER}/parts/captions_filtered_step2.jsonl",
        "rows": len(kept),
        "min_score": 0.5,
    }
    assert [json.loads(line) for line in airflow.bytes("parts/captions_filtered_step2.jsonl").splitlines()] == kept


@pytest.mark.every_airflow
def test_a_step_that_is_complete_is_not_scored_again_but_confirmed(airflow: Airflow, runs: str) -> None:
    before = airflow.bytes("seven/captions_step1.jsonl")
    code, log = airflow.test("again")
    assert code == 0, log[-6000:]
    assert airflow.states("again", "seven.plan") == ["success"]
    assert airflow.states("again", "seven.score") == ["skipped"]
    assert airflow.states("again", "seven.merge") == ["success"]
    xcoms = airflow.home.xcoms("again")
    assert xcoms["seven.plan", "return_value"] == []
    assert xcoms["seven.merge", "return_value"] == ["clip_score"]
    assert xcoms["seven.merge", "output_step"] == 1
    assert airflow.bytes("seven/captions_step1.jsonl") == before
    confirmed_by = airflow.manifest("seven/captions_step1.jsonl").confirmed_by
    assert confirmed_by is not None
    assert (confirmed_by.dag_id, confirmed_by.task_id) == ("again", "seven.merge")
    assert airflow.keys("seven") == SEVEN


def test_shards_in_pods_write_the_bytes_of_one_task_on_the_worker(
    airflow: Airflow, runs: str, cluster: FakeKubernetes
) -> None:
    code, log = airflow.test("shards_in_pods")
    assert code == 0, log[-6000:]
    assert len(cluster.created) == 3
    assert cluster.pods() == []
    assert airflow.bytes("pods/captions_step1.jsonl") == airflow.bytes("whole/captions_step1.jsonl")
    labels = [label for _, _, label in airflow.instances("shards_in_pods", "three.score")]
    assert [label and label.partition(",")[0] for label in labels] == ["1 of 3", "2 of 3", "3 of 3"]


# What the log must say of each task in cases/shards.py.
REFUSALS = {
    "too_many.plan": r"shards=2,000 is more than Airflow maps a task to: \[core\] max_map_length is 1,024",
    "no_number.plan": "shards must be a whole number from 1 on, not 'many'",
    "layout.plan": "output_layout must be 'file' or 'parts', not 'heap'",
    "percentile.plan": "percentile_key takes all rows' scores, .* take output_layout='file'",
    "filter.plan": "min_score takes all rows' scores, .* take output_layout='file'",
    "gate.plan": "min_auc: must be a number from 0 to 1, not 'much'",
    "rescore.plan": "rescore keeps scores of a whole output, which shards do not have before them",
    "column.plan": "captions.jsonl has no column 'caption'",
    "differs.score": "output_key: differ from those the step was planned with; clear the plan task",
    "no_plan": "shard without plan",
}


def test_what_is_wrong_is_refused_in_words_before_anything_is_scored(airflow: Airflow, store: ObjectStore) -> None:
    code, log = airflow.test("shard_refusals")
    assert code == 1
    for task_id, words in REFUSALS.items():
        assert airflow.states("shard_refusals", task_id) == ["failed"], task_id
        start = log.index(f"starting task_id={task_id} ")
        part = log[start : log.find("starting task_id=", start + 1)]
        assert re.search(words, part), f"{task_id}:\n{part}"
    assert not [key for key in airflow.keys("refused") if not key.endswith("/plan.json")]
    assert store.secret_key not in log
