"""Airflow's API server with what a test wants in its database. A program, because Airflow reads its settings once."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from demo.airflow_home import REPOSITORY, AirflowHome

PATH = "/below/a/path"
"""Where Airflow stands on its server."""

USERS = ("viewer", "admin")
"""They are called as their roles are, and so are their passwords."""

_READY = "ready: "
_SECONDS_TO_START = 90


@dataclass(frozen=True)
class Instance:
    """A task instance, and what it has pushed.

    :param given: what the DAG's file gives the task, beside the places; None for a task of another operator.
    :param mapped: what the DAG's file maps the task to, if that is what it does.
    :param name: what the DAG's ``map_index_template`` has come to.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    state: str | None = "success"
    xcoms: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] | None = field(default_factory=lambda: {"aws_conn_id": "store"})
    mapped: list[dict[str, Any]] | dict[str, list[Any]] | None = None
    name: str | None = None


@dataclass(frozen=True)
class ApiServer:
    """A running API server.

    :param url: Airflow's own address.
    :param links: the addresses that the operator's links have for each task instance, in their order.
    """

    url: str
    links: list[dict[str, str]]

    def client(self, user: str | None) -> httpx.Client:
        """Return a browser of somebody who has logged in, or of nobody."""
        cookies = {}
        if user is not None:
            answer = httpx.post(f"{self.url}/auth/token", json={"username": user, "password": user}, trust_env=False)
            cookies["_token"] = answer.raise_for_status().json()["access_token"]
        return httpx.Client(base_url=f"{self.url}/", cookies=cookies, timeout=60, trust_env=False)


@contextmanager
def api_server(
    folder: Path,
    instances: Sequence[Instance],
    connections: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, str] | None = None,
) -> Iterator[ApiServer]:
    """Run the API server for as long as the context lasts.

    :param instances: runs are due in the order in which they first come here, an hour apart.
    :param connections: in the database; their fields, by their ids.
    :param settings: of Airflow, beside the test's own; variables of the environment.
    """
    passwords = folder / "passwords.json"
    own_settings = {
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.web.secrecy.SecrecyAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{user}" for user in USERS),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API_AUTH__JWT_SECRET": "of a test, and long enough for its algorithm to be content: 0123456789",
        "AIRFLOW_API_APPS": "core",
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "plugins"))),
    }
    home = AirflowHome(folder, {**own_settings, **(settings or {})})
    passwords.write_text(json.dumps({user: user for user in USERS}))
    spec = folder / "spec.json"
    spec.write_text(json.dumps({"instances": [asdict(each) for each in instances], "connections": connections}))
    with (folder / "api-server.log").open("w+b") as log:
        command = [sys.executable, "-m", "tests.web.api_server", str(spec)]
        process = subprocess.Popen(command, env=home.environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            for line in _lines(process.stdout.fileno()):
                if line.startswith(_READY):
                    ready = json.loads(line.removeprefix(_READY))
                    break
            else:
                raise RuntimeError(f"the API server did not start:\n{Path(log.name).read_text()[-4000:]}")
            # It goes on to write, and would stand still once the pipe is full.
            drain = threading.Thread(target=shutil.copyfileobj, args=(process.stdout, log))
            drain.start()
            try:
                yield ApiServer(**ready)
            finally:
                process.terminate()
                drain.join()
        finally:
            process.terminate()
            process.communicate()


def _lines(output: int) -> Iterator[str]:
    """Give what a process writes, line by line, until it ends or is silent for long."""
    rest = b""
    while select.select([output], [], [], _SECONDS_TO_START)[0] and (data := os.read(output, 1 << 16)):
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode() for line in lines)


def _write(instances: Sequence[dict[str, Any]], connections: Mapping[str, Mapping[str, Any]]) -> None:
    """Write rows with Airflow's own models."""
    from airflow.models import Connection
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session
    from sqlalchemy import insert, select

    runs = dict.fromkeys((each["dag_id"], each["run_id"]) for each in instances)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with create_session() as session:
        for conn_id, fields in connections.items():
            session.add(Connection(conn_id, **fields))
        session.add(DagBundleModel(name="tests"))
        session.flush()
        new_dag: Any = DagModel  # whose own constructor has no types
        session.add_all(new_dag(dag_id=dag_id, bundle_name="tests") for dag_id in {dag_id for dag_id, _ in runs})
        session.flush()
        versions = {}
        for dag_id in dict.fromkeys(dag_id for dag_id, _ in runs):
            dag = _dag(dag_id, [each for each in instances if each["dag_id"] == dag_id])
            SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), "tests", session=session)
            session.flush()
            versions[dag_id] = session.scalars(
                select(SerializedDagModel.dag_version_id).where(SerializedDagModel.dag_id == dag_id)
            ).one()
        for hour, (dag_id, run_id) in enumerate(runs):
            session.add(DagRun(dag_id, run_id, run_after=start + timedelta(hours=hour), run_type="manual"))
        session.flush()
        numbers = {(run.dag_id, run.run_id): run.id for run in session.scalars(select(DagRun))}
        table: Any = TaskInstance.__table__
        new_xcom: Any = XComModel  # whose own constructor has no types
        for each in instances:
            where = {name: each[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
            session.execute(
                insert(table).values(
                    **where,
                    state=each["state"],
                    pool="default_pool",
                    dag_version_id=versions[each["dag_id"]],
                    rendered_map_index=each["name"],
                )
            )
            for key, value in each["xcoms"].items():
                session.add(new_xcom(dag_run_id=numbers[each["dag_id"], each["run_id"]], key=key, value=value, **where))


def _dag(dag_id: str, instances: Sequence[dict[str, Any]]) -> Any:
    """A DAG with the tasks that these are instances of, and a form in which one connection is free, and one is not."""
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk import DAG, Param

    from clip_operator.operators import ImageCLIPEvaluatorOperator

    params = {"connection": Param("store", type="string"), "offered": Param("store", enum=["others", "store"])}
    with DAG(dag_id, schedule=None, params=params) as dag:
        for task_id, each in {each["task_id"]: each for each in reversed(instances)}.items():
            places = {"task_id": task_id, "first_entry_file_name": "s3://data/x.jsonl", "cache_path": "s3://steps"}
            if each["given"] is None:
                BaseOperator(task_id=task_id)
            elif each["mapped"] is None:
                ImageCLIPEvaluatorOperator(**places, **each["given"])
            else:
                partial = ImageCLIPEvaluatorOperator.partial(**places, **each["given"])
                mapped = each["mapped"]
                partial.expand(**mapped) if isinstance(mapped, dict) else partial.expand_kwargs(mapped)
    return dag


def _links(instances: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    from airflow.providers.common.compat.sdk import TaskInstanceKey

    from clip_operator.operators import ImageCLIPEvaluatorOperator

    operator = ImageCLIPEvaluatorOperator(task_id="score", step=1, cache_path="s3://steps")
    return [
        {
            link.name: link.get_link(
                operator,
                ti_key=TaskInstanceKey(each["dag_id"], each["task_id"], each["run_id"], 1, each["map_index"]),
            )
            for link in operator.operator_extra_links
        }
        for each in instances
    ]


def _serve(spec: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}{PATH}"
        os.environ["AIRFLOW__API__BASE_URL"] = url
        import uvicorn
        from airflow.utils.db import initdb

        initdb()
        _write(**spec)
        from airflow.api_fastapi.main import app  # as the program `airflow api-server` has it

        sys.stdout.write(f"{_READY}{json.dumps({'url': url, 'links': _links(spec['instances'])})}\n")
        sys.stdout.flush()
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    _serve(json.loads(Path(sys.argv[1]).read_text()))
