"""A whole Airflow, used over its REST API: as in production on PostgreSQL, or as ``airflow standalone`` makes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from demo.airflow_home import REPOSITORY, AirflowHome
from demo.airflow_services import RunningAirflow, airflow_services, quiet_port, until
from tests.integration.postgres import postgres

USER = "engineer"
_LOG_END = 6000

_ONLY_WHAT_IS_ASKED_FOR = {
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    # DAG files do not change meanwhile, and the processors have better to do than to parse them again
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
}


@dataclass(frozen=True)
class AirflowCluster:
    """A running Airflow and a user who is logged in to it.

    The user may see and run DAGs; connections and the configuration are an operator's.
    """

    url: str
    password: str
    logs: Path
    api: httpx.Client
    """Speaks to ``/api/v2/`` as the user."""

    def get(self, path: str, **query: Any) -> Any:
        """Return what the API answers, parsed."""
        return self._answer(self.api.get(path, params=query))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post to the API and return its answer, parsed."""
        return self._answer(self.api.post(path, json=body))

    def trigger(self, dag_id: str, **params: Any) -> str:
        """Start a run of a DAG with these parameters; return the run's path, ``dags/…/dagRuns/…``."""
        runs = f"dags/{dag_id}/dagRuns"
        self.unpause(dag_id)
        started = self.post(runs, {"logical_date": None, "conf": params})
        return f"{runs}/{started['dag_run_id']}"

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run."""
        self._answer(self.api.patch(f"dags/{dag_id}", json={"is_paused": False}))

    def wait_for_run(self, dag_id: str, seconds: float) -> str:
        """Wait until there is a run of a DAG that something else starts; return its path.

        :raises TimeoutError: there is none in so many seconds.
        """
        runs = f"dags/{dag_id}/dagRuns"
        found = until(lambda: self.get(runs)["dag_runs"], seconds)
        return f"{runs}/{found[0]['dag_run_id']}"

    def wait(self, run: str, seconds: float) -> str:
        """Wait until a run has ended; return its state.

        :raises TimeoutError: it has not in so many seconds; the message says how its tasks stand.
        """

        def ended() -> str | None:
            state = str(self.get(run)["state"])
            return state if state in ("success", "failed") else None

        try:
            return until(ended, seconds)
        except TimeoutError:
            raise TimeoutError(f"{run} has not ended in {seconds} s: {self.states(run)}") from None

    def task_instances(self, run: str) -> dict[tuple[str, int], dict[str, Any]]:
        """Return a run's task instances as the API describes them, by task id and map index (-1: not mapped)."""
        found = self.get(f"{run}/taskInstances", limit=100)["task_instances"]
        return {(each["task_id"], each["map_index"]): each for each in found}

    def states(self, run: str) -> dict[tuple[str, int], str]:
        """Return the states of a run's task instances."""
        return {key: each["state"] for key, each in self.task_instances(run).items()}

    def wait_for_task(self, run: str, task_id: str, state: str, seconds: float, map_index: int = -1) -> None:
        """Wait until a task instance is in a state.

        :raises TimeoutError: it is not in so many seconds; the message says how the run's tasks stand.
        """
        try:
            until(lambda: self.states(run).get((task_id, map_index)) == state, seconds)
        except TimeoutError:
            raise TimeoutError(f"{task_id} is not {state} after {seconds} s: {self.states(run)}") from None

    def fail(self, run: str, task_id: str, map_index: int = -1) -> None:
        """Mark a task instance as failed."""
        self._answer(self.api.patch(f"{run}/taskInstances/{task_id}/{map_index}", json={"new_state": "failed"}))

    def xcom(self, run: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a task instance pushed."""
        entries = f"{run}/taskInstances/{task_id}/xcomEntries"
        return self.get(f"{entries}/{key}", map_index=map_index, deserialize=True)["value"]

    def log(self, run: str, task_id: str, map_index: int = -1, attempt: int = 1) -> str:
        """Return what a task instance wrote to its log, the exceptions' messages among it."""
        answer = self.get(f"{run}/taskInstances/{task_id}/logs/{attempt}", map_index=map_index, full_content=True)
        lines = [
            [line["event"], *(e["exc_value"] for e in line.get("error_detail") or ())] for line in answer["content"]
        ]
        return "\n".join(str(part) for parts in lines for part in parts)

    def clear(self, run: str, task_id: str, map_index: int = -1) -> list[tuple[str, int]]:
        """Have one task instance and all that comes after it run again; return which those are."""
        _, dag_id, _, run_id = run.split("/")
        body = {
            "dag_run_id": run_id,
            "task_ids": [[task_id, map_index] if map_index >= 0 else task_id],
            "only_failed": False,
            "include_downstream": True,
            "dry_run": False,
        }
        cleared = self.post(f"dags/{dag_id}/clearTaskInstances", body)["task_instances"]
        return [(each["task_id"], each["map_index"]) for each in cleared]

    def log_ends(self) -> dict[str, str]:
        """Return the end of what each service, and each task instance, wrote."""
        return {
            str(path.relative_to(self.logs)): path.read_text(errors="replace")[-_LOG_END:]
            for path in sorted(self.logs.rglob("*.log"))
        }

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        assert response.is_success, f"{response.request.method} {response.url}: {response.status_code} {response.text}"
        return response.json()


@contextmanager
def airflow_cluster(
    folder: Path,
    variables: Mapping[str, str],
    *,
    dags: Path = REPOSITORY / "dags",
    task_slots: int = 2,
    role: str = "user",
) -> Iterator[AirflowCluster]:
    """Run Airflow for as long as the context lasts, with no access to anything but what ``variables`` give.

    Nothing runs by a schedule, unless ``variables`` say so: only what is triggered.

    :param folder: its home, and the services' logs in ``logs/``.
    :param variables: environment variables of the services and tasks, such as connections and other settings.
    :param task_slots: how many task instances run at a time.
    :param role: of the user: viewer, user, op or admin.
    :raises RuntimeError: a service ended or is not well in time; the message has the end of its log.
    """
    with postgres("airflow") as database:
        settings = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.sqlalchemy_url,
            "AIRFLOW__CORE__PARALLELISM": str(task_slots),
        }
        home = AirflowHome(folder, {**_ONLY_WHAT_IS_ASKED_FOR, **settings, **variables}, dags)
        home.folder.mkdir(parents=True)
        home.run(["db", "migrate"])
        with airflow_services(home, user=USER, role=role, dag_ids=_named_as_files(dags)) as running:
            yield _cluster(running)


@contextmanager
def airflow_standalone(
    folder: Path, variables: Mapping[str, str], *, dags: Path = REPOSITORY / "dags", role: str = "admin"
) -> Iterator[AirflowCluster]:
    """Run ``airflow standalone``, as one who tries Airflow does: SQLite, all services below one process.

    As with :func:`airflow_cluster` nothing runs by a schedule, and the parameters are the same.
    """
    settings = {
        "AIRFLOW__CORE__PARALLELISM": "1",  # SQLite takes one writer at a time
        # Standalone serves the task logs too, on ports that are the same for all unless told otherwise
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(quiet_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(quiet_port()),
        # It starts the services by the name of the command
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    home = AirflowHome(folder, {**_ONLY_WHAT_IS_ASKED_FOR, **settings, **variables}, dags)
    home.folder.mkdir(parents=True)
    with airflow_services(home, {"standalone": ()}, user=USER, role=role, dag_ids=_named_as_files(dags)) as running:
        yield _cluster(running)


def _named_as_files(dags: Path) -> set[str]:
    """Return the DAGs of a folder. Each file holds one, named as the file."""
    return {path.stem for path in dags.glob("*.py")}


def _cluster(running: RunningAirflow) -> AirflowCluster:
    return AirflowCluster(running.url, running.password, running.logs, running.api)
