"""A child interpreter lives no longer than the task that started it, and its words are the task's."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from clip_operator.errors import Cancelled, JobError
from clip_operator.operators.execution.local import Subprocess
from clip_operator.operators.work import Work
from clip_operator.proof.gates import verdicts
from clip_operator.request import EvaluationRequest
from tests.conftest import SHAPES

PLAN = Work(EvaluationRequest(input="in.jsonl", output="out.jsonl"), output_step=1)


@pytest.fixture
def interpreter(tmp_path: Path) -> Callable[[str], str]:
    """Make a program that stands in for a Python interpreter and does what a test needs one to do."""

    def make(script: str) -> str:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TimeIsUpError(Exception):
    """What Airflow's execution_timeout does: an exception out of a signal handler."""


@pytest.fixture
def when_the_child_speaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Have something done in a signal handler of this thread, once the child has read the request."""
    actions: list[Callable[[], None]] = []

    def handle(number: int, frame: FrameType | None) -> None:
        actions[0]()

    before = signal.signal(signal.SIGUSR1, handle)
    yield actions.append
    signal.signal(signal.SIGUSR1, before)


def test_a_child_is_gone_when_an_exception_ends_the_task(
    interpreter: Callable[[str], str], tmp_path: Path, when_the_child_speaks: Callable[[Callable[[], None]], None]
) -> None:
    def time_is_up() -> None:
        raise TimeIsUpError

    when_the_child_speaks(time_is_up)
    python = interpreter(f"cat > /dev/null; kill -USR1 {os.getpid()}; exec sleep 600")
    with pytest.raises(TimeIsUpError):
        Subprocess(python, {}).run(PLAN)
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_a_child_that_is_stopped_ends_the_run_whatever_it_says(
    interpreter: Callable[[str], str], tmp_path: Path, when_the_child_speaks: Callable[[Callable[[], None]], None]
) -> None:
    child = Subprocess(interpreter(f"cat > /dev/null; kill -USR1 {os.getpid()}; exec sleep 600"), {})
    when_the_child_speaks(child.stop)
    with pytest.raises(Cancelled):
        child.run(PLAN)
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_a_gate_that_is_not_passed_is_the_operators_matter_and_not_the_childs(
    shapes_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = {"input": f"{shapes_dataset}/captions.jsonl", "output": f"{tmp_path}/out.jsonl"}
    work = Work(EvaluationRequest(**places, model=SHAPES, min_auc=1.0), output_step=1)
    manifest = Subprocess(sys.executable, {}).run(work)
    assert [gate.passed for gate in verdicts(manifest)] == [False]
    assert "min_auc" not in caplog.text, "which is told once"


def test_an_interpreter_without_the_packages_says_so(interpreter: Callable[[str], str]) -> None:
    python = interpreter(f'exec {sys.executable} -S "$@"')  # without site-packages
    with pytest.raises(JobError, match="No module named 'pydantic'"):
        Subprocess(python, {}).run(PLAN)


def test_the_child_sees_none_of_airflows_settings(
    interpreter: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("_AIRFLOW_TOKEN", "secret")
    python = interpreter('env | cut -d= -f1 | grep -c AIRFLOW | sed "s/^/ERROR: seen /" >&2; exit 1')
    with pytest.raises(JobError, match=r"^seen 0$"):
        Subprocess(python, {}).run(PLAN)


def test_what_a_child_repeats_of_the_data_is_not_taken_for_its_error(
    interpreter: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "clip_operator")
    python = interpreter(
        "echo 'ERROR: the reason' >&2; echo '  ERROR: forged' >&2; "
        "printf 'WARNING: \\033[1m::endgroup::\\n' >&2; exit 1"
    )
    with pytest.raises(JobError, match=r"^the reason$"):
        Subprocess(python, {}).run(PLAN)
    assert r"\x1b[1m\x3a:endgroup::" in [record.getMessage() for record in caplog.records]


def test_a_child_that_names_no_error_is_not_given_one(interpreter: Callable[[str], str]) -> None:
    python = interpreter("echo 'WARNING: Row 3 has no score' >&2; exit 1")
    with pytest.raises(JobError, match=r"ended with exit code 1 and no message$"):
        Subprocess(python, {}).run(PLAN)


def test_a_child_that_the_system_kills_is_said_to_be_killed(interpreter: Callable[[str], str]) -> None:
    python = interpreter('echo "INFO: all is well" >&2; kill -KILL $$')
    with pytest.raises(JobError, match="killed by SIGKILL: out of memory, most likely; try a smaller batch_size"):
        Subprocess(python, {}).run(PLAN)
