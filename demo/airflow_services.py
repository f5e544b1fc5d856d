"""Airflow's services, started on loopback, and ended with all that they have started: for the demo and the tests."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from demo.airflow_home import AirflowHome

T = TypeVar("T")

SERVICES: Mapping[str, Sequence[str]] = {
    "api-server": (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
"""What a whole Airflow is, each with its arguments: logs are read from the disk that all share."""

_SECONDS_TO_START = 120
_SECONDS_TO_STOP = 20
_SECONDS_BETWEEN_LOOKS = 0.5
_LOG_END = 6000


@dataclass(frozen=True)
class RunningAirflow:
    """A running Airflow and a user who is logged in to it."""

    url: str
    user: str
    password: str
    logs: Path
    api: httpx.Client
    """Speaks to ``/api/v2/`` as the user."""
    services: Mapping[str, psutil.Popen]

    def check(self) -> None:
        """Raise :class:`ChildProcessError` if a service has ended by itself."""
        _check_running(self.services)


@contextmanager
def airflow_services(
    home: AirflowHome,
    services: Mapping[str, Sequence[str]] = SERVICES,
    *,
    user: str,
    role: str,
    dag_ids: Collection[str],
    port: int | None = None,
) -> Iterator[RunningAirflow]:
    """Run services of an Airflow for as long as the context lasts, from when they are well and know some DAGs.

    They have no access to anything but what the home's variables give. A signal from the terminal does not reach them.

    :param home: with a database that is ready. The services' logs are in ``logs/`` below it.
    :param services: commands of ``airflow``, with their arguments.
    :param role: of the user: viewer, user, op or admin.
    :param dag_ids: the DAGs that they are to know.
    :param port: where the API server listens. By default a free one.
    :raises RuntimeError: a service ended or is not well in time; the message has the end of its log.
    """
    logs = home.folder / "logs"
    logs.mkdir(exist_ok=True)  # the migration has written there already
    password, passwords = secrets.token_urlsafe(12), home.folder / "passwords.json"
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({user: password}))
    port = quiet_port() if port is None else port
    url = f"http://127.0.0.1:{port}"
    settings = {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{user}:{role}",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs / "tasks"),
    }
    home = replace(home, variables={**settings, **home.variables})
    started: dict[str, psutil.Popen] = {}
    with ExitStack() as stack:
        stack.callback(_stop, started)
        for name, arguments in services.items():
            started[name] = _start(home, name, arguments, logs / f"{name}.log")
        try:
            api = stack.enter_context(log_in(url, user, password, started))
            until(lambda: _are_well(api, started), _SECONDS_TO_START)
            until(lambda: _are_known(api, started, dag_ids), _SECONDS_TO_START)
        except (TimeoutError, ChildProcessError) as error:
            ends = {path.name: path.read_text(errors="replace")[-_LOG_END:] for path in sorted(logs.glob("*.log"))}
            shown = "\n".join(f"--- {name}\n{end}" for name, end in ends.items())
            raise RuntimeError(f"Airflow did not start: {error}\n{shown}") from None
        yield RunningAirflow(url, user, password, logs, api, started)


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
        return psutil.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # one who presses Ctrl-C would end parents before their children are known
        )


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


def log_in(url: str, user: str, password: str, services: Mapping[str, psutil.Popen]) -> httpx.Client:
    """Return a client of the API with the token that it gives for the user's password, as soon as it does.

    :raises ChildProcessError: one of the services ended before.
    :raises TimeoutError: it does not in time.
    """

    def token() -> str | None:
        _check_running(services)
        try:
            answer = httpx.post(f"{url}/auth/token", json={"username": user, "password": password}, trust_env=False)
        except httpx.TransportError:
            return None
        return str(answer.json()["access_token"]) if answer.is_success else None

    headers = {"Authorization": f"Bearer {until(token, _SECONDS_TO_START)}"}
    return httpx.Client(base_url=f"{url}/api/v2/", headers=headers, timeout=30, trust_env=False)


def _are_well(api: httpx.Client, services: Mapping[str, psutil.Popen]) -> bool:
    _check_running(services)
    health = api.get("monitor/health").json()
    return all(
        health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
    )


def _are_known(api: httpx.Client, services: Mapping[str, psutil.Popen], dag_ids: Collection[str]) -> bool:
    _check_running(services)
    return set(dag_ids) <= {dag["dag_id"] for dag in api.get("dags", params={"limit": 100}).json()["dags"]}


def _check_running(services: Mapping[str, psutil.Popen]) -> None:
    for name, service in services.items():
        if (code := service.poll()) is not None:
            raise ChildProcessError(f"{name} ended with {code}")


def until(look: Callable[[], T | None], seconds: float) -> T:
    """Look until there is something to see; return it."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return seen


def quiet_port() -> int:
    """Return a free port that the kernel gives to nobody else for a minute, but to who asks for it by its number.

    A port on which a connection has just ended is held back from those who ask for any free port, as other tests do.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address), listening.accept()[0] as accepted:
            accepted.close()  # first, so that it is this port's end that lingers
    return int(address[1])
