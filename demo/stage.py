"""What the demo plays on: a folder, an S3 server with the demo's data set in it, and an Airflow that reaches it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from demo.airflow_home import REPOSITORY, AirflowHome
from demo.dataset import write_dataset
from demo.object_store import ObjectStore, object_store

FOLDER = REPOSITORY / ".demo"
DATASET = "s3://clip-demo/shapes"
DAG = "clip_evaluation"


@contextmanager
def stage(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[tuple[ObjectStore, AirflowHome]]:
    """Run the store for as long as the context lasts, and prepare Airflow's database. All files are in ``folder``.

    :param settings: environment variables for Airflow beyond the connection to the store.
    :raises SystemExit: something else plays on the same folder.
    """
    with _alone(folder), object_store(folder / "store") as store:
        with step("Draw the data set and put it into a bucket"):
            store.put_folder(write_dataset(folder / "dataset").parent, DATASET)
        connection = {"AIRFLOW_CONN_AWS_DEFAULT": store.airflow_connection}
        airflow = AirflowHome(folder / "airflow", {**connection, **(settings or {})})
        with step("Prepare Airflow's database"):
            airflow.migrate()
        yield store, airflow


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done, and when it is done how long it took."""
    print(f"{title} … ", end="", flush=True)
    began = time.monotonic()
    yield
    print(f"{time.monotonic() - began:.1f} s", flush=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                f"Another make demo or make airflow is running in {folder}: wait for its end, or press Ctrl-C there"
            ) from None
        yield
