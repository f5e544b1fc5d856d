"""Which connections the pages read with: what an XCom names opens nothing by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance as TaskInstanceModel
from airflow.providers.common.compat.sdk import conf
from sqlalchemy import select

from clip_operator.operators.links import ReportLink
from clip_operator.operators.parameters import DEFAULT_CONNECTION

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

_ENVIRONMENT = "environment"
"""What stands in the configuration for no connection: what boto3 finds on the API server."""

_FIELD = re.compile(r"\{\{ *params\.(?P<name>\w+) *\}\}")
"""A template that is one field of the DAG's form."""


def may_read_with(
    session: Session, aws_conn_id: str | None, task_id: str, is_task_instance: ColumnElement[bool]
) -> bool:
    """Tell whether a page may read with a connection; with None, with the API server's own credentials.

    It may if the DAG gives the task that connection, in the version that the task instance is of, or if an
    administrator lists it. A template in the DAG names none, but for a field of its form that offers a list: all of it.

    :param is_task_instance: which row of Airflow's task instances it is.
    """
    listed = (conf.get("clip_operator", "page_connections", fallback=None) or "").replace("\n", ",").split(",")
    if (aws_conn_id or _ENVIRONMENT) in (name.strip() for name in listed):
        return True
    found = session.scalar(
        select(SerializedDagModel)
        .join(TaskInstanceModel, TaskInstanceModel.dag_version_id == SerializedDagModel.dag_version_id)
        .where(is_task_instance)
    )
    if found is None or found.data is None:
        return False
    dag = found.data["dag"]
    given = [
        connection
        for task in (task["__var"] for task in dag["tasks"])
        if task["task_id"] == task_id
        for connection in _connections_of(task)
    ]
    return aws_conn_id in given or any(aws_conn_id in _offered(dag, connection) for connection in given)


def _offered(dag: Mapping[str, Any], template: Any) -> list[Any]:
    """Return what a field of a DAG's form offers, where a template is such a field and it offers a list."""
    field = _FIELD.fullmatch(template) if isinstance(template, str) else None
    schemas = [param["schema"] for name, param in dag.get("params", ()) if field is not None and name == field["name"]]
    return [choice for schema in schemas for choice in schema.get("__var", schema).get("enum", ())]


def scores_something(task: Mapping[str, Any]) -> bool:
    """Tell whether a task of a serialized DAG is one of the operator's that have reports."""
    return ReportLink.name in task.get("_operator_extra_links", {})


def mapped_parameters(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a task of a serialized DAG is mapped to, as far as the DAG's file gives it: one dict of lists, as
    ``expand`` has it, or a dict of each instance, as ``expand_kwargs`` has it."""
    mapped = task.get("expand_input", {}).get("value", {})
    return [given.get("__var", given) for given in (mapped if isinstance(mapped, list) else [mapped])]


def _connections_of(task: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the connections that a task of the operator has where the DAG's file gives them; of another task none."""
    if not scores_something(task):
        return
    if not task.get("_is_mapped"):
        yield task.get("aws_conn_id")  # None is left out
        return
    yield task.get("partial_kwargs", {}).get("aws_conn_id", DEFAULT_CONNECTION)
    for own in mapped_parameters(task):
        if "aws_conn_id" in own:
            yield from own["aws_conn_id"] if isinstance(own["aws_conn_id"], list) else [own["aws_conn_id"]]
