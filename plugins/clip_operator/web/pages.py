"""Fills the templates of the pages that are not reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from clip_operator.report.templates import percent, templates
from clip_operator.web.charts import Chart, chart
from clip_operator.web.failures import Failure
from clip_operator.web.runs import Run


def theme_script() -> str:
    """Return the script by which a page in Airflow is light or dark as Airflow is."""
    return templates("clip_operator.web").get_template("theme.js").render()


def message_page(title: str, text: str, failure: Failure | None = None, link: tuple[str, str] | None = None) -> str:
    """Return a page that says something where there is nothing else to show.

    :param failure: why there is nothing, if a task has left that.
    :param link: an address, relative to the page's own, and what is to be found there.
    """
    page = templates("clip_operator.web").get_template("message.html.jinja")
    return page.render(title=title, text=text, failure=failure, link=link)


def runs_page(dag_id: str, tasks: Mapping[str, Sequence[Run]]) -> str:
    """Return the page over all runs of a DAG.

    :param tasks: by task, the oldest run first.
    """
    return (
        templates("clip_operator.web")
        .get_template("runs.html.jinja")
        .render(
            dag_id=dag_id,
            tasks=[
                (task_id, _charts(runs), [(run, _report(task_id, run)) for run in runs[::-1]])
                for task_id, runs in tasks.items()
            ],
        )
    )


def _charts(runs: Sequence[Run]) -> list[Chart]:
    labels = [f"{run.ended_at:%Y-%m-%d %H:%M}" for run in runs]
    charts = (
        chart("Mean score", [run.mean for run in runs], labels, "{:.4f}".format),
        chart("AUC", [run.auc for run in runs], labels, "{:.3f}".format),
        chart("Rows without a score", [run.error_rate for run in runs], labels, percent),
        chart("Rows per second", [run.rows_per_second for run in runs], labels, "{:,.1f}".format),
    )
    return [drawn for drawn in charts if drawn is not None]


def _report(task_id: str, run: Run) -> str:
    """Return the address of a run's report, relative to the page's own."""
    return f"report?{urlencode({'run_id': run.run_id, 'task_id': task_id})}"
