"""What a task that fails leaves for people: the last lines of its log, and an XCom that the pages show."""

from __future__ import annotations

import logging
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from clip_operator.errors import JobError, RequestError
from clip_operator.operators import ImageCLIPEvaluatorOperator, MergeShardsOperator, PlanShardsOperator
from clip_operator.operators.failures import DOCUMENTED, FAILURE, MOST_CHARACTERS
from clip_operator.operators.task_instance import told_to_airflow
from tests.operators.tasks import TaskInstance

pytestmark = pytest.mark.every_airflow

WIDTH = 80


def failed(caplog: pytest.LogCaptureFixture, raised: BaseException, **task: Any) -> tuple[Any, list[str]]:
    """Return the XCom and the errors of the log that a task leaves in which something is raised."""
    ti = TaskInstance({})
    context: Any = {"ti": ti, "task": SimpleNamespace(execution_timeout=timedelta(seconds=7), **task)}
    with pytest.raises(BaseException), told_to_airflow(context):  # noqa: B017, PT011 - of which kind is not its matter
        raise raised
    return ti.xcoms.get(FAILURE), [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]


def test_the_last_lines_of_the_log_give_the_reason_one_fact_each(caplog: pytest.LogCaptureFixture) -> None:
    where = "s3://" + "a-bucket-with-a-long-name/" * 8
    error = JobError(f"the access to {where} was denied; nothing was written. Give the connection leave to read there.")
    _, lines = failed(caplog, error)
    assert lines[0] == "The task fails."
    assert lines[1].startswith("Why:   the access to")
    assert "".join(line[7:] for line in lines[1:6]).replace(" ", "").startswith(f"theaccessto{where}")
    assert "       nothing was written." in lines
    assert "       Give the connection leave to read there." in lines
    assert any(line.startswith("Next:  Mend it and clear the task") for line in lines)
    assert lines[-1].startswith(f"See:   {DOCUMENTED}")
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    ("raised", "kind", "reason"),
    [
        (RequestError("min_auc must be a number"), "request", "min_auc must be a number"),
        (JobError("no step"), "job", "no step"),
        (AirflowTaskTimeout("of Airflow"), "job", "the task took longer than its execution_timeout, 0:00:07"),
        (ZeroDivisionError("by s3://me:secret@b"), "unexpected", "ZeroDivisionError: by s3://b"),
        (AirflowSkipException("not today"), None, None),
    ],
)
def test_whatever_fails_a_task_is_left_for_the_pages(
    caplog: pytest.LogCaptureFixture, raised: BaseException, kind: str | None, reason: str | None
) -> None:
    left, lines = failed(caplog, raised)
    assert left == (kind and {"kind": kind, "reason": reason, "shard": None})
    assert bool(lines) is (kind is not None)


def test_a_reason_of_any_length_is_left_with_its_beginning(caplog: pytest.LogCaptureFixture) -> None:
    left, _ = failed(caplog, JobError("x" * 100_000))
    assert len(left["reason"]) == MOST_CHARACTERS
    assert left["reason"].endswith("x…")


def test_a_failed_shard_says_which(caplog: pytest.LogCaptureFixture) -> None:
    left, lines = failed(caplog, JobError("it broke"), shard="00003-of-00007")
    assert left["shard"] == "00003-of-00007"
    assert lines[1] == "Shard: 00003-of-00007"


def test_a_reason_that_cannot_be_left_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def push(key: str, value: object) -> None:
        raise ConnectionError("the API server is away")

    context: Any = {"ti": SimpleNamespace(xcom_push=push), "task": SimpleNamespace()}
    with pytest.raises(AirflowException, match=r"^it broke$"), told_to_airflow(context):
        raise JobError("it broke")
    assert "the API server is away" in caplog.text


@pytest.mark.parametrize("operator", [ImageCLIPEvaluatorOperator, PlanShardsOperator, MergeShardsOperator])
def test_every_task_of_the_package_does_so(operator: type[ImageCLIPEvaluatorOperator]) -> None:
    ti = TaskInstance({})
    plan: Any = {"plan": "s3://b/steps/plan.json"} if operator is MergeShardsOperator else {}
    task = operator(task_id="score", cache_path="s3://b/steps", step=1, on_gate="{{ 'perhaps' }}", **plan)
    task.on_gate = "perhaps"
    with pytest.raises(AirflowFailException, match="on_gate must be 'fail' or 'mark'"):
        task.execute({"ti": ti, "task": task})  # type: ignore[typeddict-item]
    assert ti.xcoms[FAILURE]["reason"] == "on_gate must be 'fail' or 'mark', not 'perhaps'"
