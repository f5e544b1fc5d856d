"""The DAG that scores start goes on as they tell it to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models import DagBag
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import AssetAlias
from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

from demo.airflow_home import REPOSITORY

pytestmark = pytest.mark.every_airflow

GOOD: dict[str, Any] = {
    "output_path": "s3://b/steps/captions_step1.jsonl",
    "scores": {"mean": 0.6},
    "calibration": {"auc": 0.85},
    "gates": {"passed": True, "breaches": []},
}
BREACH = "the mean score is 0.6000, below min_mean_score=0.9 by 0.3000"


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    bag = DagBag(REPOSITORY / "dags" / "clip_scores_ready.py", safe_mode=False)
    dag: Any = bag.dags["clip_scores_ready"]
    return dict(dag.task_dict)


def events(*extras: dict[str, Any]) -> TriggeringAssetEventsAccessor:
    """Return what Airflow hands to the tasks of a run that these events started."""
    asset, alias = SimpleNamespace(name="a", uri="s3://b/a"), AssetAlias("clip_scores")
    made: Sequence[Any] = [SimpleNamespace(asset=asset, source_aliases=[alias], extra=extra) for extra in extras]
    return TriggeringAssetEventsAccessor.build(made)


@pytest.mark.parametrize(
    ("extras", "way"),
    [
        ([GOOD], "curate"),
        ([{**GOOD, "gates": {"passed": False, "breaches": [BREACH]}}], "look_into_it"),
        ([{**GOOD, "calibration": {"auc": 0.6}}], "look_into_it"),
        ([{**GOOD, "calibration": None, "scores": None}], "look_into_it"),
        ([GOOD, {**GOOD, "calibration": {"auc": 0.6}}], "look_into_it"),
        ([{**GOOD, "calibration": {"auc": 0.6}}, GOOD], "look_into_it"),
    ],
)
def test_only_scores_that_are_all_good_are_curated(
    tasks: dict[str, Any], extras: list[dict[str, Any]], way: str
) -> None:
    assert tasks["judge"].python_callable(events(*extras)) == way


def test_the_log_says_what_the_scores_are(tasks: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tasks["judge"].python_callable(events({**GOOD, "gates": {"passed": False, "breaches": [BREACH]}}))
    assert f"{GOOD['output_path']}: mean 0.6, AUC 0.85" in caplog.text
    assert f"{GOOD['output_path']}: {BREACH}" in caplog.text


def test_the_next_task_gets_the_steps(tasks: dict[str, Any]) -> None:
    assert tasks["curate"].python_callable(events(GOOD, GOOD)) == [GOOD["output_path"]] * 2


def test_a_run_by_hand_has_nothing_to_judge(tasks: dict[str, Any]) -> None:
    with pytest.raises(AirflowSkipException, match="Run by hand"):
        tasks["judge"].python_callable(events())
