"""Fills the templates of the pages that are not reports."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlencode

from clip_operator.report.templates import percent, templates
from clip_operator.web.charts import Chart, chart
from clip_operator.web.comparison import RowOfBoth, Statistic
from clip_operator.web.evaluations import TaskInstance
from clip_operator.web.failures import Failure
from clip_operator.web.overlay import Overlay
from clip_operator.web.runs import MOST_INSTANCES, MOST_RUNS, MOST_SHARDS, Run, Series, Task

if TYPE_CHECKING:
    from jinja2 import Environment


def frame_script() -> str:
    """Return the script by which a page in Airflow is light or dark as Airflow is, and its links lead there."""
    return _environment().get_template("frame.js").render()


def message_page(title: str, text: str, failure: Failure | None = None, link: tuple[str, str] | None = None) -> str:
    """Return a page that says something where there is nothing else to show.

    :param failure: why there is nothing, if a task has left that.
    :param link: an address, relative to the page's own, and what is to be found there.
    """
    page = _environment().get_template("message.html.jinja")
    return page.render(title=title, text=text, failure=failure, link=link)


def runs_page(dag_id: str, tasks: Sequence[Task]) -> str:
    """Return the page over all runs of a DAG."""
    addresses = Addresses(dag_id)
    page = _environment().get_template("runs.html.jinja")
    return page.render(
        dag_id=dag_id,
        tasks=tasks,
        charts=_charts,
        addresses=addresses,
        most_runs=MOST_RUNS,
        most_instances=MOST_INSTANCES,
        most_shards=MOST_SHARDS,
    )


def comparison_page(
    before: TaskInstance,
    after: TaskInstance,
    tasks: Sequence[Task],
    *,
    models: Sequence[str] | None,
    statistics: Sequence[Statistic],
    drawings: Sequence[tuple[str, Overlay]],
    rows: Sequence[RowOfBoth],
    missing: Sequence[str],
) -> str:
    """Return the page on two runs of a task.

    :param tasks: of the DAG, with their runs.
    :param models: what scored them, if that differs.
    :param missing: which of the two have no histograms and samples any more.
    """
    every = [(series.name, run) for task in tasks if task.task_id == after.task_id for series in task.series
             for run in series.runs if not run.has_failed]  # fmt: skip
    addresses = Addresses(after.dag_id)
    return (
        _environment()
        .get_template("compare.html.jinja")
        .render(
            dag_id=after.dag_id,
            task_id=after.task_id,
            before=_Side.of(before, every),
            after=_Side.of(after, every),
            addresses=addresses,
            models=models,
            statistics=statistics,
            drawings=drawings,
            rows=rows,
            missing=missing,
            others=[
                (addresses.beside(after, run), f"{run.ended_at:%Y-%m-%d %H:%M}{'' if name is None else f' [{name}]'}")
                for name, run in reversed(every)
                if (run.run_id, run.map_index) != (after.run_id, after.map_index)
            ],
        )
    )


@dataclass(frozen=True)
class _Side:
    """One of two runs, as the page names it.

    :param ended: None if the run is not among the newest.
    """

    instance: TaskInstance
    name: str | None = None
    ended: datetime | None = None

    @classmethod
    def of(cls, instance: TaskInstance, every: Sequence[tuple[str | None, Run]]) -> Self:
        for name, run in every:
            if (run.run_id, run.map_index) == (instance.run_id, instance.map_index):
                return cls(instance, name, run.ended_at)
        return cls(instance)


class Addresses:
    """Where the pages link to, relative to the pages of a DAG, so that Airflow may stand under a path."""

    def __init__(self, dag_id: str) -> None:
        self._dag_id = dag_id

    def report(self, task_id: str, run: Run | TaskInstance) -> str:
        """Return the address of a run's report, or of why there is none."""
        return f"report?{self._instance(task_id, run).query}"

    def beside(self, after: TaskInstance, before: Run) -> str:
        """Return the address of the page on two runs of a task."""
        other = {"with_run_id": before.run_id, "with_map_index": before.map_index}
        return f"compare?{after.query}&{urlencode(other)}"

    def compared(self, task_id: str, series: Series, run: Run) -> str | None:
        """Return where a run stands beside the one before it that scored, if there is such a one."""
        before = [each for each in series.runs[: series.runs.index(run)] if not each.has_failed]
        return None if run.has_failed or not before else self.beside(self._instance(task_id, run), before[-1])

    def in_airflow(self, task_id: str, run: Run) -> str:
        """Return the address of Airflow's own page on a task instance."""
        names = ["dags", self._dag_id, "runs", run.run_id, "tasks", task_id]
        names += [] if run.map_index < 0 else ["mapped", str(run.map_index)]
        return f"../../../{'/'.join(quote(name, safe='') for name in names)}"

    def _instance(self, task_id: str, run: Run | TaskInstance) -> TaskInstance:
        return TaskInstance(self._dag_id, run.run_id, task_id, run.map_index)


@functools.cache
def _environment() -> Environment:
    return templates("clip_operator.web")


def _charts(runs: Sequence[Run]) -> list[Chart]:
    labels = [f"{run.ended_at:%Y-%m-%d %H:%M}{': failed' if run.has_failed else ''}" for run in runs]
    limits = next((run.limits for run in reversed(runs) if not run.has_failed), {})

    def gate(name: str) -> tuple[str, float] | None:
        return (name, limits[name]) if name in limits else None

    below = [run.below_threshold for run in runs] if gate("max_below_threshold") else []
    drawn = (
        chart("Mean score", [run.mean for run in runs], labels, "{:.4f}".format, gate("min_mean_score")),
        chart("AUC", [run.auc for run in runs], labels, "{:.3f}".format, gate("min_auc")),
        chart("Below the threshold", below, labels[: len(below)], percent, gate("max_below_threshold")),
        chart("Rows without a score", [run.error_rate for run in runs], labels, percent),
        chart("Rows per second", [run.rows_per_second for run in runs], labels, "{:,.1f}".format),
    )
    return [each for each in drawn if each is not None]
