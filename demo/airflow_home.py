"""An Airflow of its own, in a folder of its own, that runs this repository's DAGs: for the demo and the tests."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

REPOSITORY = Path(__file__).resolve().parent.parent


class Command(Protocol):
    """An ``airflow`` command that runs, as ``subprocess`` has its processes."""

    args: Any

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when there is one."""

    def poll(self) -> int | None:
        """Return the exit code if there is one yet."""

    def send_signal(self, number: signal.Signals, /) -> None:
        """Send the process a signal."""


@dataclass(frozen=True)
class AirflowHome:
    """An ``AIRFLOW_HOME`` with a SQLite database.

    :param folder: the home.
    :param variables: environment variables for Airflow beyond its own settings, such as connections.
    :param dags: the folder of the DAGs.
    """

    folder: Path
    variables: Mapping[str, str]
    dags: Path = REPOSITORY / "dags"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which Airflow runs: this process's, without any Airflow settings it may have."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self._database}",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "PYTHONWARNINGS": "ignore",
            "NO_COLOR": "1",
            **self.variables,
        }

    def migrate(self) -> None:
        """Create the database, or bring it up to this Airflow's version. Costs nothing if it is."""
        marker = self.folder / "migrated-to"
        current = version("apache-airflow-core")
        if self._database.exists() and marker.exists() and marker.read_text() == current:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run(["db", "migrate"])
        marker.write_text(current)

    def run(self, arguments: Sequence[str], log: Path | None = None) -> None:
        """Run an ``airflow`` command, its output kept in a log file.

        :raises subprocess.CalledProcessError: it failed; ``output`` holds the end of the log.
        """
        log = log or self.folder / f"{'-'.join(arguments[:2])}.log"
        process = self.start(arguments, log)
        if code := process.wait():
            end = log.read_text(errors="replace")[-6000:]
            raise subprocess.CalledProcessError(code, process.args, output=end)

    def start(self, arguments: Sequence[str], log: Path) -> Command:
        """Start an ``airflow`` command, its output going to a log file."""
        command = [str(Path(sys.executable).with_name("airflow")), *arguments]
        with log.open("wb") as out:
            return subprocess.Popen(command, env=self.environment, stdout=out, stderr=subprocess.STDOUT)

    def xcoms(self, dag_id: str, map_index: int = -1) -> dict[tuple[str, str], Any]:
        """Return the XComs that the latest run of a DAG left, by (task id, key)."""
        rows = self._of_latest_run("task_id, key, value", "xcom", dag_id, map_index)
        # SQLite keeps a number as a number, whatever the column's declared type
        return {(task_id, key): json.loads(value) if isinstance(value, str) else value for task_id, key, value in rows}

    def task_states(self, dag_id: str, map_index: int = -1) -> dict[str, str]:
        """Return how the tasks of the latest run of a DAG ended, by task id."""
        return dict(self._of_latest_run("task_id, state", "task_instance", dag_id, map_index))

    def _of_latest_run(self, columns: str, table: str, dag_id: str, map_index: int) -> list[Any]:
        query = f"""
            SELECT {columns} FROM {table} WHERE dag_id = :dag AND map_index = :map_index
            AND run_id = (SELECT run_id FROM dag_run WHERE dag_id = :dag ORDER BY id DESC LIMIT 1)
        """  # noqa: S608 - columns and table are constants of this class; values are bound
        with closing(sqlite3.connect(self._database)) as database:
            return database.execute(query, {"dag": dag_id, "map_index": map_index}).fetchall()

    @property
    def _database(self) -> Path:
        return self.folder / "airflow.db"
