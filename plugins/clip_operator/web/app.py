"""The pages, and a list to download, for whoever may read the XComs of the DAG."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from clip_operator.web.evaluations import NothingToShow, TaskInstance, known_run_id, report_page, worst_rows
from clip_operator.web.pages import frame_script, message_page, runs_page
from clip_operator.web.runs import read_runs
from clip_operator.web.two_runs import two_runs_page

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # No scripts but our own one, and nothing from elsewhere.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
}

# The path names the DAG, so that it is surely the one that is shown of which the permission is asked.
_may_read_xcoms = Depends(requires_access_dag("GET", DagAccessEntity.XCOM))

_RunId = Annotated[str, Query(min_length=1, max_length=300)]
_TaskId = Annotated[str, Query(max_length=300)]
_MapIndex = Annotated[str, Query(max_length=20)]

app = FastAPI(title="CLIP scores", docs_url=None, redoc_url=None, openapi_url=None)


@app.middleware("http")
async def _secured(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


# Functions without async run in threads of their own: a store that does not answer holds up no other page.
@app.get("/dags/{dag_id}/report", dependencies=[_may_read_xcoms])
def report(
    dag_id: str,
    run_id: _RunId,
    task_id: _TaskId,
    map_index: _MapIndex = "-1",
) -> HTMLResponse:
    """Return the report of a task instance's last try; where there is none, why."""
    try:
        return _shown(report_page(_instance(dag_id, run_id, task_id, map_index)))
    except NothingToShow as nothing:
        return _said(nothing)


@app.get("/dags/{dag_id}/worst-rows", dependencies=[_may_read_xcoms])
def listed(
    dag_id: str,
    run_id: _RunId,
    task_id: _TaskId,
    map_index: _MapIndex = "-1",
) -> Response:
    """Return the list of the worst rows that belongs to a task instance's report, to be kept as a file."""
    try:
        name, table = worst_rows(_instance(dag_id, run_id, task_id, map_index))
    except NothingToShow as nothing:
        return _said(nothing)
    plain_name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    disposition = f'attachment; filename="{plain_name}"'
    return Response(table, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": disposition})


@app.get("/dags/{dag_id}/runs", dependencies=[_may_read_xcoms])
def runs(dag_id: str) -> HTMLResponse:
    """Return what the DAG's runs came to, one after another."""
    tasks = read_runs(dag_id)
    if not tasks:
        text = (
            f"None of the newest runs of {dag_id} has scored anything, nor failed at it. Runs are listed here once a "
            "task that scores a data set has ended."
        )
        return _shown(message_page("No CLIP scores yet", text))
    return _shown(runs_page(dag_id, tasks))


@app.get("/dags/{dag_id}/compare", dependencies=[_may_read_xcoms])
def compare(
    dag_id: str,
    run_id: _RunId,
    task_id: _TaskId,
    with_run_id: _RunId,
    map_index: _MapIndex = "-1",
    with_map_index: _MapIndex = "-1",
) -> HTMLResponse:
    """Return what became better and worse from one run of a task, the one it is compared *with*, to another."""
    after = _instance(dag_id, run_id, task_id, map_index)
    before = _instance(dag_id, with_run_id, task_id, with_map_index)
    try:
        return _shown(two_runs_page(before, after))
    except NothingToShow as nothing:
        return _said(nothing)


def _instance(dag_id: str, run_id: str, task_id: str, map_index: str) -> TaskInstance:
    # of a task that is not mapped, the UI leaves the words {MAP_INDEX} as they are
    number = int(map_index) if map_index.isdecimal() and int(map_index) < 1 << 31 else -1
    return TaskInstance(dag_id, known_run_id(dag_id, run_id), task_id, number)


def _said(nothing: NothingToShow) -> HTMLResponse:
    """Return the page that says why there is nothing.

    Status 200 in any case: it is for people, in a frame, where browsers and proxies put pages of their own in the place
    of an error's.
    """
    return _shown(message_page(nothing.title, nothing.text, nothing.failure, nothing.link))


def _shown(page: str) -> HTMLResponse:
    """Return a page with leave to use its one style sheet, which comes before all that is not ours, and pictures.

    Before anything else stands the script that makes it a page of Airflow's. No other has leave to run.
    """
    script = frame_script()
    page = page.replace("<head>", f"<head>\n<script>{script}</script>", 1)
    style = page.partition("<style>")[2].partition("</style>")[0]
    policy = (
        f"{_HEADERS['Content-Security-Policy']}; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
