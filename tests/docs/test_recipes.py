"""The recipes, and the quick start's DAG, do what their pages say when Airflow runs them on the reader's bucket."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models import DagBag
from airflow.sdk import AssetAlias
from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

from demo.airflow_home import REPOSITORY
from demo.object_store import ObjectStore
from tests.docs.pages import blocks, commands
from tests.warm_airflow import WarmAirflow

pytestmark = pytest.mark.slow

BUCKET = "my-bucket"
PATHS = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "plugins")])
RECIPES = {
    match[1]: block.text
    for block in blocks("python")
    if block.page in ("docs/quickstart.md", "docs/recipes.md")
    and (match := re.search(r"@dag\(.*\)\ndef (\w+)", block.text))
}


class Chat(HTTPServer):
    """A server that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Post)
        self.messages: list[str] = []


class Post(BaseHTTPRequestHandler):
    """A message to the chat."""

    server: Chat

    def do_POST(self) -> None:
        """Keep the message."""
        self.server.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    with Chat() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def client(store: ObjectStore, shapes_dataset: Path) -> Iterator[Any]:
    """The store with the reader's bucket: a data set, and two below ``sources/``."""
    for folder in ("", "/sources/first", "/sources/second"):
        store.put_folder(shapes_dataset, f"s3://{BUCKET}{folder}")
    client = store.client()
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page["Contents"]:
            client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    for name, text in RECIPES.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def airflow(store: ObjectStore, dags: Path, chat: Chat, tmp_path_factory: pytest.TempPathFactory) -> WarmAirflow:
    connections = {
        "AIRFLOW_CONN_AWS_DEFAULT": store.airflow_connection,
        "AIRFLOW_CONN_CHAT": json.dumps({"conn_type": "http", "host": f"http://127.0.0.1:{chat.server_port}/hook"}),
    }
    home = WarmAirflow(tmp_path_factory.mktemp("airflow"), connections, dags)
    home.migrate()
    return home


def run(airflow: WarmAirflow, dag_id: str) -> tuple[int, str]:
    log = airflow.folder / "run.log"
    code = airflow.start(["dags", "test", dag_id], log).wait()
    return code, log.read_text(errors="replace")


def test_there_are_these_recipes() -> None:
    assert list(RECIPES) == ["score_shapes", "score_every_source", "use_good_steps", "score_and_tell"]


def test_the_quick_starts_dag_scores_what_its_commands_uploaded(
    airflow: WarmAirflow, client: Any, store: ObjectStore, shapes_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shapes_dataset.parent)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    in_a_bucket = [each for each in commands() if each.where.startswith("docs/quickstart.md") and BUCKET in each.text]
    assert [each.words[:3] for each in in_a_bucket] == [
        ["python", "-m", "demo.upload"],
        ["clip-operator", "evaluate", "--quiet"],
    ]
    for each in in_a_bucket:
        program = [] if each.words[0] == "python" else ["-m", "clip_operator"]  # the same as the script, where none is
        words = [*program, *(str(shapes_dataset) if word == "shapes" else word for word in each.words[1:])]
        subprocess.run([sys.executable, *words], check=True, env={**os.environ, "PYTHONPATH": PATHS})
    code, log = run(airflow, "score_shapes")
    assert code == 0, log[-4000:]
    assert "Scored 60 of 64 rows" in log


def test_a_task_is_mapped_over_what_is_found_and_named_after_it(airflow: WarmAirflow, client: Any) -> None:
    code, log = run(airflow, "score_every_source")
    assert code == 0, log[-4000:]
    steps = [f"s3://{BUCKET}/by-source/{name}_step1.jsonl" for name in ("first", "second")]
    for index, step in enumerate(steps):
        assert airflow.xcoms("score_every_source", index)["score", "output_path"] == step
        assert step in log
    assert airflow.task_states("score_every_source")["report"] == "success"
    with closing(sqlite3.connect(airflow.folder / "airflow.db")) as database:
        query = "SELECT rendered_map_index FROM task_instance WHERE dag_id = 'score_every_source' AND task_id = 'score'"
        labels = database.execute(query).fetchall()
    assert sorted(labels) == [("first",), ("second",)]


def test_steps_that_passed_their_gates_are_used(dags: Path) -> None:
    dag: Any = DagBag(dags / "use_good_steps.py", safe_mode=False).dags["use_good_steps"]
    alias, asset = AssetAlias("clip_scores"), SimpleNamespace(name="a", uri="s3://b/a")
    extras = [{"output_path": f"s3://b/{passed}", "gates": {"passed": passed}} for passed in (True, False)]
    made: Any = [SimpleNamespace(asset=asset, source_aliases=[alias], extra=extra) for extra in extras]
    good_steps = dag.task_dict["good_steps"].python_callable
    assert good_steps(TriggeringAssetEventsAccessor.build(made)) == ["s3://b/True"]


def test_a_gate_that_was_not_passed_is_told_whether_the_task_failed_or_not(
    airflow: WarmAirflow, client: Any, chat: Chat, dags: Path
) -> None:
    assert run(airflow, "score_and_tell")[0] == 0
    (marked,) = chat.messages
    assert re.fullmatch(r"score_and_tell, score, run \S+: .*below min_auc=0\.9.*", marked)

    path = dags / "score_and_tell.py"
    path.write_text(path.read_text().replace('on_gate="mark"', 'on_gate="fail"'))
    assert run(airflow, "score_and_tell")[0] == 1
    assert len(chat.messages) == 2

    path.write_text(path.read_text().replace("min_auc=0.9", "min_auc=0.7"))
    assert run(airflow, "score_and_tell")[0] == 0
    assert len(chat.messages) == 2
