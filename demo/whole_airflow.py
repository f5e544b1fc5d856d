"""Keeps a whole Airflow up on this machine: ``make airflow``, or ``python -m demo.whole_airflow``.

The demo's S3 server with its data set, and Airflow's services on SQLite, all on loopback, with the DAGs and the plugin
of this repository, until Ctrl-C ends all of it. Everything that it makes is in ``.demo``.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

from demo.airflow_services import RunningAirflow, airflow_services, quiet_port
from demo.object_store import ObjectStore
from demo.stage import DAG, DATASET, FOLDER, stage, step

_PORT = 8080
_END_IT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "2",  # SQLite takes one writer at a time
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",  # clip_daily is nevertheless
}


def main() -> int:
    """Keep Airflow up until a signal comes; return 0 if all went well until then."""
    parser = argparse.ArgumentParser(prog="python -m demo.whole_airflow", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder for everything that it makes")
    parser.add_argument("--port", type=int, help=f"of Airflow's address; by default {_PORT}, or another if it is taken")
    asked = parser.parse_args()
    folder, port = asked.folder.resolve(), _port(asked.port)
    for number in _END_IT:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _end)
    code = 0
    with suppress(KeyboardInterrupt), stage(folder, _SETTINGS) as (store, home), ExitStack() as stack:
        with step("Start Airflow"):
            airflow = stack.enter_context(airflow_services(home, user="admin", role="admin", dag_ids=[DAG], port=port))
        _tell(airflow, store)
        try:
            while True:
                airflow.check()
                time.sleep(1)
        except ChildProcessError as error:
            code = 1
            print(f"\nAirflow's {error}; the logs are in {airflow.logs}", file=sys.stderr)
        finally:
            print("\nEnding Airflow and the S3 server, which may take half a minute …", flush=True)
    print(f"Ended. What was scored stays in {folder}, for the next time.")
    return code


def _port(asked: int | None) -> int:
    """Return the port that was asked for, or else the usual one if it is free, or else any.

    :raises SystemExit: what was asked for is taken.
    """
    try:
        with socket.create_server(("127.0.0.1", asked or _PORT)):
            return asked or _PORT
    except OSError as error:
        if asked:
            raise SystemExit(
                f"Port {asked} cannot be had ({os.strerror(error.errno or 0)}): give another, or none"
            ) from None
        return quiet_port()


def _end(*_: object) -> NoReturn:
    for number in _END_IT:
        signal.signal(number, signal.SIG_IGN)  # ending takes some seconds, and is to be whole
    raise KeyboardInterrupt


def _tell(airflow: RunningAirflow, store: ObjectStore) -> None:
    print(f"""
Airflow is up, with the DAGs in dags/ and the demo's data set in {DATASET}

  Address    {airflow.url}
  User       {airflow.user}
  Password   {airflow.password}

Open the address in a browser, log in, and trigger the DAG {DAG}: its form has the demo's data set in it
already. When its task has run, the tab "CLIP scores" has the report.

  S3 server  {store.endpoint_url}, access key {store.access_key}, secret key {store.secret_key}
  Logs       {airflow.logs}

Only this machine can reach any of it. Press Ctrl-C to end it.""", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
