"""What a DAG's runs came to, as series over time: one of each task that scores, or of each instance of a mapped one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance as TaskInstanceModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, func, select, tuple_

from clip_operator.operators.failures import FAILURE
from clip_operator.web.connections import mapped_parameters, scores_something
from clip_operator.web.evaluations import NAME_IN_GRID
from clip_operator.web.failures import failure_in
from clip_operator.web.xcoms import IS_SMALL, STORED, number_in, plain_value

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

MOST_RUNS = 100
"""How many runs of a DAG are looked at, the newest."""

MOST_INSTANCES = 20
"""How many instances of a mapped task have series of their own."""

MOST_SHARDS = 50
"""How many failed shards of a task are listed."""

_MOST_MAPPED = 20_000  # instances whose names alone are looked at, those of the newest runs
_MOST_FAILURES = 500
_AT_ONCE = 200

_MOST_WORDS = 20


@dataclass(frozen=True)
class Run:
    """What one task instance came to. None where it is not known."""

    run_id: str
    ended_at: datetime
    rows: int | None = None
    mean: float | None = None
    auc: float | None = None
    error_rate: float | None = None
    rows_per_second: float | None = None
    gates_passed: bool | None = None
    gates_set: bool = True
    map_index: int = -1
    below_threshold: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    """Of gates, by their names."""
    breaches: tuple[str, ...] = ()
    """In words, which gates were not passed."""
    has_failed: bool = False
    """It has failed, and scored nothing."""
    reason: tuple[str, ...] = ()
    """Why it has failed, one fact after another."""


@dataclass
class Series:
    """The runs of a task or of one instance of a mapped task, the oldest first.

    :param name: the instance's, as the grid has it; None where the task is not mapped.
    """

    name: str | None
    runs: list[Run] = field(default_factory=list)


@dataclass
class Task:
    """A task that scores, or its failed shards.

    :param failed_shards: the newest first; with their names.
    :param left_out: how many instances, or failed shards, there are beside those.
    """

    task_id: str
    series: list[Series] = field(default_factory=list)
    failed_shards: list[tuple[str, Run]] = field(default_factory=list)
    left_out: int = 0


class _Key(NamedTuple):
    """One task instance, and where its run stands among the others; 0 is the newest."""

    age: int
    map_index: int
    task_id: str
    run_id: str
    name: str | None

    @property
    def series(self) -> tuple[str, str | None]:
        """The task, and the name of its instance."""
        return self.task_id, self.name


def read_runs(dag_id: str) -> list[Task]:
    """Return what the newest runs of a DAG came to, by the task that scored.

    Of shards, only those that have failed are there: what they come to is said of their merge.
    """
    with create_session(scoped=False) as session:
        scoring, sharded = _tasks_of(session, dag_id)
        ages = _ages(session, dag_id)
        found = dict(_unmapped(session, dag_id, ages))
        mapped = {key for key in _mapped(session, dag_id, ages) if key.task_id not in sharded}
        scoring |= {key.task_id for key in (*found, *mapped)}
        failures = {
            key: run
            for key, run in _failures(session, dag_id, ages)
            if key not in found and key not in mapped and (run.reason or key.task_id in scoring)
        }
        shards = {key: run for key, run in failures.items() if key.map_index >= 0 and key.task_id in sharded}
        found |= {key: run for key, run in failures.items() if key not in shards}
        chosen, left_out = _chosen({*mapped, *found})
        found |= _values(session, dag_id, [key for key in mapped if key.series in chosen])
    tasks = _by_series({key: run for key, run in found.items() if key.series in chosen})
    for task_id, count in left_out.items():
        tasks[task_id].left_out = count
    _add_shards(tasks, shards)
    return [task for _, task in sorted(tasks.items())]


def _add_shards(tasks: dict[str, Task], shards: Mapping[_Key, Run]) -> None:
    for key in sorted(shards):
        task = tasks.setdefault(key.task_id, Task(key.task_id))
        if len(task.failed_shards) < MOST_SHARDS:
            task.failed_shards.append((key.name or str(key.map_index), shards[key]))
        else:
            task.left_out += 1


def _by_series(found: Mapping[_Key, Run]) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    series: dict[tuple[str, str | None], Series] = {}
    for key in sorted(found):
        task = tasks.setdefault(key.task_id, Task(key.task_id))
        if key.series not in series:
            series[key.series] = Series(key.name)
            task.series.append(series[key.series])
        series[key.series].runs.insert(0, found[key])
    return tasks


def _chosen(keys: Iterable[_Key]) -> tuple[set[tuple[str, str | None]], dict[str, int]]:
    """Return the series that are shown, and how many more a task has.

    Those of the newest runs come first, in the order of the grid.
    """
    names: dict[str, dict[str | None, None]] = {}
    for key in sorted(keys):
        names.setdefault(key.task_id, {})[key.name] = None
    chosen = {(task_id, name) for task_id, own in names.items() for name in [*own][:MOST_INSTANCES]}
    return chosen, {task_id: len(own) - MOST_INSTANCES for task_id, own in names.items() if len(own) > MOST_INSTANCES}


def _tasks_of(session: Session, dag_id: str) -> tuple[set[str], set[str]]:
    """Return which tasks of the DAG score, and which of them are mapped over shards, as it is now."""
    newest = select(SerializedDagModel).where(SerializedDagModel.dag_id == dag_id)
    dag = session.scalar(newest.order_by(SerializedDagModel.created_at.desc()).limit(1))
    tasks = [] if dag is None or dag.data is None else [task["__var"] for task in dag.data["dag"]["tasks"]]
    scoring = [task for task in tasks if scores_something(task)]
    sharded = [task for task in scoring if any("shard" in given for given in mapped_parameters(task))]
    return {task["task_id"] for task in scoring}, {task["task_id"] for task in sharded}


def _ages(session: Session, dag_id: str) -> dict[str, int]:
    """Return the place of each of the newest runs, by its id; 0 is the newest."""
    newest = select(DagRun.run_id).where(DagRun.dag_id == dag_id)
    newest = newest.order_by(DagRun.run_after.desc(), DagRun.id.desc()).limit(MOST_RUNS)
    return {run_id: age for age, run_id in enumerate(session.scalars(newest))}


def _unmapped(session: Session, dag_id: str, ages: Mapping[str, int]) -> Iterator[tuple[_Key, Run]]:
    found = session.execute(
        select(XComModel.task_id, XComModel.run_id, XComModel.timestamp, STORED).where(
            XComModel.dag_id == dag_id,
            XComModel.run_id.in_(ages),
            XComModel.key == "summary",
            XComModel.map_index == -1,
            IS_SMALL,
        )
    )
    for task_id, run_id, ended_at, stored in found:
        if (run := _run(run_id, ended_at, plain_value(stored))) is not None:
            yield _Key(ages[run_id], -1, task_id, run_id, None), run


_IS_THE_XCOMS = and_(
    *(getattr(TaskInstanceModel, name) == getattr(XComModel, name) for name in ("dag_id", "run_id", "task_id")),
    TaskInstanceModel.map_index == XComModel.map_index,
)


def _mapped(session: Session, dag_id: str, ages: Mapping[str, int]) -> Iterator[_Key]:
    """Yield the mapped instances that have a summary; not what it is."""
    found = session.execute(
        select(XComModel.map_index, XComModel.task_id, XComModel.run_id, NAME_IN_GRID)
        .join(TaskInstanceModel, _IS_THE_XCOMS)
        .where(
            XComModel.dag_id == dag_id,
            XComModel.run_id.in_(ages),
            XComModel.key == "summary",
            XComModel.map_index >= 0,
        )
        .order_by(XComModel.dag_run_id.desc(), XComModel.map_index)
        .limit(_MOST_MAPPED)
    )
    for map_index, task_id, run_id, name in found:
        yield _Key(ages[run_id], map_index, task_id, run_id, name or str(map_index))


def _values(session: Session, dag_id: str, keys: Iterable[_Key]) -> dict[_Key, Run]:
    """Return what the summaries of mapped instances say."""
    wanted = {(key.run_id, key.task_id, key.map_index): key for key in keys}
    columns = (XComModel.run_id, XComModel.task_id, XComModel.map_index)
    runs = {}
    instances = list(wanted)
    for start in range(0, len(instances), _AT_ONCE):
        some = instances[start : start + _AT_ONCE]
        found = session.execute(
            select(*columns, XComModel.timestamp, STORED).where(
                XComModel.dag_id == dag_id, XComModel.key == "summary", tuple_(*columns).in_(some), IS_SMALL
            )
        )
        for run_id, task_id, map_index, ended_at, stored in found:
            if (run := _run(run_id, ended_at, plain_value(stored), map_index)) is not None:
                runs[wanted[run_id, task_id, map_index]] = run
    return runs


def _failures(session: Session, dag_id: str, ages: Mapping[str, int]) -> Iterator[tuple[_Key, Run]]:
    """Yield the task instances that have failed, of whatever operator; those without a reason may be another's."""
    found = session.execute(
        select(
            TaskInstanceModel.map_index,
            TaskInstanceModel.task_id,
            TaskInstanceModel.run_id,
            NAME_IN_GRID,
            func.coalesce(TaskInstanceModel.end_date, DagRun.run_after),
            STORED,
        )
        .join(DagRun, and_(DagRun.dag_id == TaskInstanceModel.dag_id, DagRun.run_id == TaskInstanceModel.run_id))
        .outerjoin(XComModel, and_(_IS_THE_XCOMS, XComModel.key == FAILURE, IS_SMALL))
        .where(
            TaskInstanceModel.dag_id == dag_id, TaskInstanceModel.run_id.in_(ages), TaskInstanceModel.state == "failed"
        )
        .order_by(DagRun.run_after.desc(), TaskInstanceModel.map_index)
        .limit(_MOST_FAILURES)
    )
    for map_index, task_id, run_id, name, ended_at, stored in found:
        failure = None if stored is None else failure_in(plain_value(stored))
        reason = () if failure is None else tuple(failure.facts)
        own = None if map_index < 0 else name or str(map_index)
        run = Run(run_id, ended_at, map_index=map_index, has_failed=True, reason=reason)
        yield _Key(ages[run_id], map_index, task_id, run_id, own), run


def _run(run_id: str, ended_at: datetime, summary: Any, map_index: int = -1) -> Run | None:
    """Return the run, or None if the XCom is another operator's."""
    if not isinstance(summary, Mapping) or not isinstance(rows := summary.get("rows"), Mapping):
        return None
    total, failed = number_in(rows, "total"), number_in(rows, "failed")
    calibration = summary.get("calibration")
    gates = summary.get("gates")
    gates = gates if isinstance(gates, Mapping) else {}
    passed = gates.get("passed")
    return Run(
        run_id=run_id,
        ended_at=ended_at,
        rows=None if total is None else int(total),
        mean=number_in(summary.get("scores"), "mean"),
        auc=number_in(calibration, "auc"),
        error_rate=failed / total if total and failed is not None else None,
        rows_per_second=number_in(summary, "rows_per_second"),
        gates_passed=passed if isinstance(passed, bool) else None,
        gates_set=gates.get("verdicts") != [],
        map_index=map_index,
        below_threshold=number_in(calibration, "false_reject_rate"),
        limits=_limits(gates.get("verdicts")),
        breaches=tuple(words for words in _listed(gates.get("breaches")) if isinstance(words, str)),
    )


def _limits(verdicts: Any) -> dict[str, float]:
    """Return the limits of gates, by their names."""
    limits = {}
    for verdict in _listed(verdicts):
        name = verdict.get("name") if isinstance(verdict, Mapping) else None
        if isinstance(name, str) and (limit := number_in(verdict, "limit")) is not None:
            limits[name] = limit
    return limits


def _listed(values: Any) -> list[Any]:
    return values[:_MOST_WORDS] if isinstance(values, list) else []
