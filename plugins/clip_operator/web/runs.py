"""The summaries that a DAG's runs have left, as series over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.models.xcom import XComModel
from sqlalchemy import select

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_MOST_RUNS = 100


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


def read_runs(session: Session, dag_id: str) -> dict[str, list[Run]]:
    """Return the newest runs of each of a DAG's tasks that score a whole step, the oldest first.

    Shards are not among them: they are mapped, and what they come to is said of their merge.
    """
    found = session.execute(
        select(XComModel.task_id, XComModel.run_id, XComModel.timestamp, XComModel)
        .where(XComModel.dag_id == dag_id, XComModel.key == "summary", XComModel.map_index == -1)
        .order_by(XComModel.timestamp.desc())
        .limit(_MOST_RUNS * 4)
    )
    tasks: dict[str, list[Run]] = {}
    for task_id, run_id, ended_at, xcom in found:
        run = _run(run_id, ended_at, XComModel.deserialize_value(xcom))
        if run is not None and len(tasks.setdefault(task_id, [])) < _MOST_RUNS:
            tasks[task_id].append(run)
    return {task_id: runs[::-1] for task_id, runs in sorted(tasks.items()) if runs}


def _run(run_id: str, ended_at: datetime, summary: Any) -> Run | None:
    """Return the run, or None if the XCom is another operator's."""
    if not isinstance(summary, Mapping) or not isinstance(rows := summary.get("rows"), Mapping):
        return None
    total, failed = _number(rows, "total"), _number(rows, "failed")
    gates = summary.get("gates")
    return Run(
        run_id=run_id,
        ended_at=ended_at,
        rows=None if total is None else int(total),
        mean=_number(summary.get("scores"), "mean"),
        auc=_number(summary.get("calibration"), "auc"),
        error_rate=failed / total if total and failed is not None else None,
        rows_per_second=_number(summary, "rows_per_second"),
        gates_passed=gates.get("passed") if isinstance(gates, Mapping) else None,
    )


def _number(values: Any, key: str) -> float | None:
    value = values.get(key) if isinstance(values, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
