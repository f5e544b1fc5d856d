"""A whole Airflow, used over its REST API: as in production on PostgreSQL, or as ``airflow standalone`` makes it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from demo.airflow_home import REPOSITORY, AirflowHome
from tests.integration.postgres import postgres

T = TypeVar("T")

USER = "engineer"
_SECONDS_TO_START = 120
_SECONDS_TO_STOP = 20
_SECONDS_BETWEEN_LOOKS = 0.5
_LOG_END = 6000


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
        found = _until(lambda: self.get(runs)["dag_runs"], seconds)
        return f"{runs}/{found[0]['dag_run_id']}"

    def wait(self, run: str, seconds: float) -> str:
        """Wait until a run has ended; return its state.

        :raises TimeoutError: it has not in so many seconds; the message says how its tasks stand.
        """

        def ended() -> str | None:
            state = str(self.get(run)["state"])
            return state if state in ("success", "failed") else None

        try:
            return _until(ended, seconds)
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
            _until(lambda: self.states(run).get((task_id, map_index)) == state, seconds)
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
    services = {
        "api-server": (),
        "scheduler": ("--skip-serve-logs",),
        "dag-processor": (),
        "triggerer": ("--skip-serve-logs",),
    }
    with postgres("airflow") as database:
        settings = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.sqlalchemy_url,
            "AIRFLOW__CORE__PARALLELISM": str(task_slots),
        }
        home = AirflowHome(folder, {**settings, **variables}, dags)
        home.folder.mkdir(parents=True)
        home.run(["db", "migrate"])
        with _running(home, services, role) as cluster:
            yield cluster


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
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_quiet_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_quiet_port()),
        # It starts the services by the name of the command
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    home = AirflowHome(folder, {**settings, **variables}, dags)
    home.folder.mkdir(parents=True)
    with _running(home, {"standalone": ()}, role) as cluster:
        yield cluster


@contextmanager
def _running(home: AirflowHome, services: Mapping[str, Sequence[str]], role: str) -> Iterator[AirflowCluster]:
    """Run services of an Airflow, wait until they are well and know all DAGs, and log a user in."""
    logs = home.folder / "logs"
    logs.mkdir(exist_ok=True)  # the migration has written there already
    password, passwords = secrets.token_urlsafe(), home.folder / "passwords.json"
    passwords.write_text(json.dumps({USER: password}))
    port = _quiet_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:{role}",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs / "tasks"),
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        # DAG files do not change meanwhile, and the processors have better to do than to parse them again
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    }
    home = replace(home, variables={**settings, **home.variables})
    started: dict[str, psutil.Popen] = {}
    with ExitStack() as stack:
        stack.callback(_stop, started)
        for name, arguments in services.items():
            started[name] = _start(home, name, arguments, logs / f"{name}.log")
        try:
            api = stack.enter_context(_log_in(url, password, started))
            _until(lambda: _are_well(api, started), _SECONDS_TO_START)
            _until(lambda: _are_parsed(api, started, home.dags), _SECONDS_TO_START)
        except (TimeoutError, ChildProcessError) as error:
            ends = {path.name: path.read_text(errors="replace")[-_LOG_END:] for path in sorted(logs.glob("*.log"))}
            shown = "\n".join(f"--- {name}\n{end}" for name, end in ends.items())
            raise RuntimeError(f"Airflow did not start: {error}\n{shown}") from None
        yield AirflowCluster(url, password, logs, api)


def _start(home: AirflowHome, service: str, arguments: Sequence[str], log: Path) -> psutil.Popen:
    command = [str(Path(sys.executable).with_name("airflow")), service, *arguments]
    environment = {
        **{name: value for name, value in home.environment.items() if not name.startswith("AWS_")},
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "CLIP_OPERATOR_CACHE": str(home.folder / "cache"),
        **home.variables,
    }
    with log.open("wb") as out:
        return psutil.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)


def _stop(services: Mapping[str, psutil.Popen]) -> None:
    """End the services and every process that they have started."""
    # Found before their parents are gone: then nothing would tell whose they were.
    leaders = [service for service in services.values() if service.is_running()]
    family = [child for service in leaders for child in service.children(recursive=True)]
    running = [*services.values(), *family]
    # Standalone ends without its services, which are its children, unless they are told too.
    for process in [child for service in leaders for child in service.children()] + leaders:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(running, timeout=_SECONDS_TO_STOP)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=_SECONDS_TO_STOP)


def _log_in(url: str, password: str, services: Mapping[str, psutil.Popen]) -> httpx.Client:
    """Return a client with the token that the API gives for the user's password."""

    def token() -> str | None:
        _check_running(services)
        try:
            answer = httpx.post(f"{url}/auth/token", json={"username": USER, "password": password}, trust_env=False)
        except httpx.TransportError:
            return None
        return str(answer.json()["access_token"]) if answer.is_success else None

    headers = {"Authorization": f"Bearer {_until(token, _SECONDS_TO_START)}"}
    return httpx.Client(base_url=f"{url}/api/v2/", headers=headers, timeout=30, trust_env=False)


def _are_well(api: httpx.Client, services: Mapping[str, psutil.Popen]) -> bool:
    _check_running(services)
    health = api.get("monitor/health").json()
    return all(
        health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
    )


def _are_parsed(api: httpx.Client, services: Mapping[str, psutil.Popen], dags: Path) -> bool:
    """Whether every file of DAGs is known to the API. Each of this repository's holds one DAG, named as the file."""
    _check_running(services)
    known = {dag["dag_id"] for dag in api.get("dags", params={"limit": 100}).json()["dags"]}
    return {path.stem for path in dags.glob("*.py")} <= known


def _check_running(services: Mapping[str, psutil.Popen]) -> None:
    for name, service in services.items():
        if (code := service.poll()) is not None:
            raise ChildProcessError(f"{name} ended with {code}")


def _until(look: Callable[[], T | None], seconds: float) -> T:
    """Look until there is something to see; return it."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return seen


def _quiet_port() -> int:
    """Return a free port that the kernel gives to nobody else for a minute, but to who asks for it by its number.

    A port on which a connection has just ended is held back from those who ask for any free port, as other tests do.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address), listening.accept()[0] as accepted:
            accepted.close()  # first, so that it is this port's end that lingers
    return int(address[1])
