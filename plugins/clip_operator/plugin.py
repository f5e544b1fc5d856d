"""The Airflow plugin: pages in Airflow's UI that show what the scores came to."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from clip_operator.operators.links import PREFIX


class _Pages:
    """Loads the pages when they are asked for. Only the API server does: workers and DAG files need no FastAPI."""

    def __get__(self, plugin: object, owner: type) -> list[dict[str, Any]]:
        from clip_operator.web import app

        return [{"app": app, "url_prefix": f"/{PREFIX}", "name": "CLIP scores"}]


class ClipScoresPlugin(AirflowPlugin):
    """A tab on every task instance with the report of its last try, and one on every DAG with all its runs."""

    name = "clip_scores"

    # Relative, so that they also work where Airflow stands under a path. Of a task that is not mapped, the UI leaves
    # {MAP_INDEX} as it is.
    external_views = [  # noqa: RUF012 - Airflow's own attribute, which it extends and takes from
        {
            "name": "CLIP scores",
            "href": f"{PREFIX}/dags/{{DAG_ID}}/report?run_id={{RUN_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": "clip-scores",
        },
        {
            "name": "CLIP scores",
            "href": f"{PREFIX}/dags/{{DAG_ID}}/runs",
            "destination": "dag",
            "url_route": "clip-scores-of-runs",
        },
    ]

    fastapi_apps = _Pages()
