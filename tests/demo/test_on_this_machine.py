"""What make demo and make airflow do on this machine, and what they leave of it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from demo.airflow_home import REPOSITORY
from demo.airflow_services import log_in, until
from tests.integration.airflow_cluster import AirflowCluster

pytestmark = pytest.mark.slow

SECONDS = 300
"""For one thing to happen, on a machine that is busy with other tests."""


def command(module: str, folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, "--folder", str(folder), *arguments]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> str:
    """What make demo prints."""
    done = subprocess.run(command("demo", folder), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _as_at_a_terminal() -> None:
    """Hear Ctrl-C, to which what a shell starts in the background is deaf, and so may be all that the tests start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def airflow(folder: Path, demo: str) -> Iterator[psutil.Popen]:
    """What make airflow starts, where a demo has been before."""
    with (folder / "said").open("wb") as said:
        started = psutil.Popen(
            command("demo.whole_airflow", folder),
            cwd=REPOSITORY,
            stdout=said,
            stderr=said,
            preexec_fn=_as_at_a_terminal,
        )
    yield started
    family = [started, *started.children(recursive=True)] if started.is_running() else []
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture(scope="module")
def told(folder: Path, airflow: psutil.Popen) -> dict[str, str]:
    """What it tells when it is up, by what stands before it."""

    def said() -> dict[str, str] | None:
        text = (folder / "said").read_text()
        assert airflow.poll() is None, text
        return (
            dict(re.findall(r"^  (Address|User|Password|S3 server) +([^\s,]+)", text, re.M))
            if "Ctrl-C" in text
            else None
        )

    return until(said, SECONDS)


def test_the_demo_leaves_its_report_as_a_file_and_names_it_last(demo: str, folder: Path) -> None:
    *_, where = demo.splitlines()[-1].split()
    assert Path(where) == folder / "report.html"
    page = Path(where).read_text()
    assert page.startswith("<!doctype html>")
    assert "captions_step1.jsonl" in page


def test_who_logs_in_runs_the_dag_on_the_demos_data_set(folder: Path, told: dict[str, str]) -> None:
    with log_in(told["Address"], told["User"], told["Password"], {}) as api:
        cluster = AirflowCluster(told["Address"], told["Password"], folder / "airflow" / "logs", api)
        run = cluster.trigger("clip_evaluation", cache_path="s3://clip-demo/again")
        assert cluster.wait(run, SECONDS) == "success"
        assert cluster.xcom(run, "score") == ["clip_score"]
        assert cluster.get("dags/clip_daily")["is_paused"] is True
        assert cluster.get("importErrors")["total_entries"] == 0


@pytest.mark.usefixtures("told")
def test_what_works_in_the_same_folder_is_not_disturbed(folder: Path) -> None:
    done = subprocess.run(command("demo", folder), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Another make demo or make airflow is running in {folder}" in done.stderr


def test_ctrl_c_ends_all_of_it(folder: Path, airflow: psutil.Popen, told: dict[str, str]) -> None:
    family = airflow.children(recursive=True)
    assert len(family) > 5
    airflow.send_signal(signal.SIGINT)
    assert airflow.wait(SECONDS) == 0
    assert [process for process in family if process.is_running()] == []
    for url in (told["Address"], told["S3 server"]):
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)
    assert (folder / "said").read_text().endswith(f"What was scored stays in {folder}, for the next time.\n")


def test_a_port_that_is_taken_is_said_to_be(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        asked = command("demo.whole_airflow", folder, "--port", port)
        done = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"Port {port} cannot be had (Address already in use): give another, or none\n"
