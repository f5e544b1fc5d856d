"""What a task instance has recorded of its work, read where it says that it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.taskinstance import TaskInstance as TaskInstanceModel
from airflow.models.xcom import XComModel
from sqlalchemy import select

from clip_operator.errors import ClipOperatorError
from clip_operator.manifest import EvaluationManifest, parse_manifest
from clip_operator.operators.aws import aws_connection
from clip_operator.request import Requester
from clip_operator.samples import Samples, read_samples
from clip_operator.steps import MANIFEST_SUFFIX
from clip_operator.storage import ObjectNotFound, Storage, display

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# A person waits for the page.
_SECONDS = 4.0
_ATTEMPTS = 2

_MOST_MANIFEST_BYTES = 4 << 20


class NothingToShow(Exception):
    """There is no report, for a reason that a person can read.

    :param title: what is the matter, in a few words.
    :param text: what happened, and what can be done.
    """

    def __init__(self, title: str, text: str) -> None:
        super().__init__(title)
        self.title = title
        self.text = text


@dataclass(frozen=True)
class TaskInstance:
    """Which task instance a page is about. ``map_index`` is -1 where the task is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


def read_evaluation(session: Session, instance: TaskInstance) -> tuple[EvaluationManifest, Samples | None]:
    """Return the manifest of what a task instance has done, and samples of it.

    Where they stand is told by the task instance's own XCom alone, and they must name it in turn.

    :raises NothingToShow: there is no such thing, or it cannot be read.
    """
    recorded = _recorded(session, instance)
    uri, aws_conn_id = recorded.get("uri"), recorded.get("aws_conn_id")
    if not isinstance(uri, str) or not uri.endswith(MANIFEST_SUFFIX) or not isinstance(aws_conn_id, str | None):
        raise NothingToShow("No CLIP scores", "The XCom 'manifest' of this task instance is not one of a CLIP score.")
    try:
        storage = _impatient_storage(aws_conn_id, uri)
        manifest = parse_manifest(storage.read(uri, _MOST_MANIFEST_BYTES))
        samples = None if manifest is None else read_samples(storage, uri.removesuffix(MANIFEST_SUFFIX))
    except ObjectNotFound:
        raise NothingToShow(
            "The manifest is gone",
            f"There is nothing at {display(uri)} any more, or it stands on a disk that this server does not see. The "
            "scores' summary is still among the XComs of the task instance.",
        ) from None
    except ClipOperatorError as error:
        raise NothingToShow(
            "The store cannot be reached",
            f"{error}. The page reads it from Airflow's API server, with the connection of the task"
            f"{'' if aws_conn_id is None else f', {aws_conn_id!r}'}; so that server has to reach the store, too.",
        ) from None
    if manifest is None:
        raise NothingToShow(
            "The manifest cannot be read",
            f"{display(uri)} is not a manifest that this version of the package knows. The API server may have an "
            "older version than the worker.",
        )
    requester = Requester(**dataclasses.asdict(instance))
    if requester not in (manifest.request.requested_by, manifest.confirmed_by):
        raise NothingToShow(
            "Another run has written here since",
            f"The step {display(manifest.output.uri)} has been written again, by another task instance: "
            f"{_named(manifest.confirmed_by or manifest.request.requested_by)}. Its report is there. The summary of "
            "this one is among its XComs.",
        )
    return manifest, samples


def _recorded(session: Session, instance: TaskInstance) -> Mapping[str, Any]:
    """Return the XCom that says where the manifest stands."""
    # A plus sign that was not encoded in the address arrives as a space, and run ids have one in their time zone.
    for run_id in dict.fromkeys((instance.run_id, instance.run_id.replace(" ", "+"))):
        found = session.scalars(
            XComModel.get_many(
                run_id=run_id or "-",
                key="manifest",
                dag_ids=instance.dag_id,
                task_ids=instance.task_id,
                map_indexes=instance.map_index,
                limit=1,
            )
        ).first()
        if found is not None:
            value = XComModel.deserialize_value(found)
            if run_id != instance.run_id:
                object.__setattr__(instance, "run_id", run_id)
            return value if isinstance(value, Mapping) else {}
    raise _why_nothing_is_recorded(session, instance)


def _why_nothing_is_recorded(session: Session, instance: TaskInstance) -> NothingToShow:
    state = session.scalar(
        select(TaskInstanceModel.state).where(
            TaskInstanceModel.dag_id == instance.dag_id,
            TaskInstanceModel.run_id.in_((instance.run_id, instance.run_id.replace(" ", "+"))),
            TaskInstanceModel.task_id == instance.task_id,
            TaskInstanceModel.map_index == instance.map_index,
        )
    )
    if state in ("failed", "up_for_retry", "upstream_failed"):
        return NothingToShow(
            "No CLIP scores",
            "This task instance has failed, and has recorded no scores. Its log says why.",
        )
    if state in ("running", "queued", "scheduled", "deferred", "up_for_reschedule", "restarting"):
        return NothingToShow(
            "No CLIP scores yet",
            "This task instance has not ended. If it scores a data set, its report is here when it has.",
        )
    return NothingToShow(
        "No CLIP scores",
        "This task instance has scored no data set. Reports are on the tasks of ImageCLIPEvaluatorOperator, and on the "
        "merge task of a clip_evaluation_group.",
    )


def _impatient_storage(aws_conn_id: str | None, uri: str) -> Storage:
    from botocore.config import Config

    access = aws_connection(aws_conn_id, [uri]).access
    retries = Config(retries={"total_max_attempts": _ATTEMPTS})
    config = retries if access.config is None else access.config.merge(retries)
    return Storage(dataclasses.replace(access, timeout_seconds=_SECONDS, config=config))


def _named(requester: Requester | None) -> str:
    if requester is None:
        return "a run outside Airflow"
    return f"task {requester.task_id!r} of DAG {requester.dag_id!r}, run {requester.run_id!r}"
