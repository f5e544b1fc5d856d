"""The summaries that a DAG's runs have left, as series over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from clip_operator.web.xcoms import IS_SMALL, STORED, plain_value

MOST_RUNS = 100
"""How many runs of a DAG are looked at, the newest."""

# No number of a run is larger. Others are in no chart: NaN, infinity, and integers that no float holds.
_MOST = 1e15


@dataclass(frozen=True)
class Run:
    """What one task instance came to. None where it is not known."""

    run_id: str
    ended_at: datetime
    rows: int | None
    mean: float | None
    auc: float | None
    error_rate: float | None
    rows_per_second: float | None
    gates_passed: bool | None


def read_runs(dag_id: str) -> dict[str, list[Run]]:
    """Return what the newest runs of a DAG came to, by the task that scored; the oldest first, each in its run's place.

    Shards are not among them: they are mapped, and what they come to is said of their merge.
    """
    newest = (
        select(DagRun.run_id, DagRun.run_after, DagRun.id)
        .where(DagRun.dag_id == dag_id)
        .order_by(DagRun.run_after.desc(), DagRun.id.desc())
        .limit(MOST_RUNS)
        .subquery()
    )
    tasks: dict[str, list[Run]] = {}
    with create_session(scoped=False) as session:
        found = session.execute(
            select(XComModel.task_id, XComModel.run_id, XComModel.timestamp, STORED)
            .join(newest, XComModel.run_id == newest.c.run_id)
            .where(XComModel.dag_id == dag_id, XComModel.key == "summary", XComModel.map_index == -1, IS_SMALL)
            .order_by(newest.c.run_after, newest.c.id)
        )
        for task_id, run_id, ended_at, stored in found:
            run = _run(run_id, ended_at, plain_value(stored))
            if run is not None:
                tasks.setdefault(task_id, []).append(run)
    return dict(sorted(tasks.items()))


def _run(run_id: str, ended_at: datetime, summary: Any) -> Run | None:
    """Return the run, or None if the XCom is another operator's."""
    if not isinstance(summary, Mapping) or not isinstance(rows := summary.get("rows"), Mapping):
        return None
    total, failed = _number(rows, "total"), _number(rows, "failed")
    gates = summary.get("gates")
    passed = gates.get("passed") if isinstance(gates, Mapping) else None
    return Run(
        run_id=run_id,
        ended_at=ended_at,
        rows=None if total is None else int(total),
        mean=_number(summary.get("scores"), "mean"),
        auc=_number(summary.get("calibration"), "auc"),
        error_rate=failed / total if total and failed is not None else None,
        rows_per_second=_number(summary, "rows_per_second"),
        gates_passed=passed if isinstance(passed, bool) else None,
    )


def _number(values: Any, key: str) -> float | None:
    value = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOST:
        return None
    return float(value)
