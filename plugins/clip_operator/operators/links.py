"""Buttons on a task instance that lead to the pages of the plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskInstanceKey
    from airflow.sdk import BaseOperator

PREFIX = "clip-scores"
"""The address of the plugin's pages, below Airflow's own."""


class ReportLink(BaseOperatorLink):
    """The way to the report on what the task instance has scored."""

    name = "CLIP report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the page. It says so if there is nothing to show."""
        query = {"run_id": ti_key.run_id, "task_id": ti_key.task_id, "map_index": ti_key.map_index}
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return f"{base}/{PREFIX}/dags/{quote(ti_key.dag_id, safe='')}/report?{urlencode(query)}"


class ScoredStepLink(ReportLink):
    """The way to where the report says which object was written, and of what it was made."""

    name = "Scored step"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of that part of the page."""
        return super().get_link(operator, ti_key=ti_key) + "#output"
