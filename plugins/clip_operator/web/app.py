"""The two pages, for whoever may read the XComs of the DAG."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from clip_operator.report import render
from clip_operator.web.evaluations import NothingToShow, TaskInstance, read_evaluation
from clip_operator.web.pages import message_page, runs_page
from clip_operator.web.runs import read_runs

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# No scripts, nothing from elsewhere. The pages' own style sheets stand in them and name their digest there, which a
# header must not forbid, so what it allows of styles is any that is within the page.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)

# The path names the DAG, so that it is surely the one that is shown of which the permission is asked.
_may_read_xcoms = Depends(requires_access_dag("GET", DagAccessEntity.XCOM))

app = FastAPI(title="CLIP scores", docs_url=None, redoc_url=None, openapi_url=None)


@app.middleware("http")
async def _secured(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update({**_HEADERS, "Content-Security-Policy": _POLICY})
    return response


# Functions without async run in threads of their own: a store that does not answer holds up no other page.
@app.get("/dags/{dag_id}/report", dependencies=[_may_read_xcoms])
def report(
    dag_id: str,
    session: SessionDep,
    run_id: Annotated[str, Query(max_length=300)],
    task_id: Annotated[str, Query(max_length=300)],
    map_index: Annotated[str, Query(max_length=20)] = "-1",
) -> HTMLResponse:
    """The report of a task instance's last try; where there is none, why."""
    number = int(map_index) if map_index.isdecimal() else -1
    try:
        manifest, samples = read_evaluation(session, TaskInstance(dag_id, run_id, task_id, number))
    except NothingToShow as nothing:
        # For people in a frame: with another status, browsers and proxies may show pages of their own.
        return HTMLResponse(message_page(nothing.title, nothing.text))
    return HTMLResponse(render(manifest, samples))


@app.get("/dags/{dag_id}/runs", dependencies=[_may_read_xcoms])
def runs(dag_id: str, session: SessionDep) -> HTMLResponse:
    """What the DAG's runs came to, one after another."""
    tasks = read_runs(session, dag_id)
    if not tasks:
        return HTMLResponse(
            message_page(
                "No CLIP scores yet",
                f"No run of {dag_id} has scored anything. Runs are listed here once a task that scores a data set has "
                "ended well.",
            )
        )
    return HTMLResponse(runs_page(dag_id, tasks))
