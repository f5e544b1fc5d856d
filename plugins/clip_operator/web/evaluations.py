"""What a task instance has recorded of its work, read where it says that it stands."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance as TaskInstanceModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from clip_operator.errors import ClipOperatorError
from clip_operator.operators.aws import aws_connection
from clip_operator.proof.manifest import EvaluationManifest, read_manifest
from clip_operator.report.samples import Samples, read_samples
from clip_operator.request import Requester
from clip_operator.steps import MANIFEST_SUFFIX
from clip_operator.storage import ObjectNotFound, ObjectTooLarge, Storage, display

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# A person waits for the page.
_SECONDS = 4.0
_ATTEMPTS = 2


# All of Airflow's pages share one set of threads. Not all of them shall wait for a store that does not answer.
_reading = threading.BoundedSemaphore(8)

_FAILED = ("failed", "up_for_retry", "upstream_failed")
_NOT_ENDED = ("running", "queued", "scheduled", "deferred", "up_for_reschedule", "restarting")


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


@dataclass(frozen=True)
class _Location:
    """Where a manifest stands, and the connection that leads there."""

    uri: str
    aws_conn_id: str | None


def known_run_id(dag_id: str, run_id: str) -> str:
    """Return the id of the run that is meant.

    Airflow 3.1's UI writes an id into the address as it is, so that the + in it arrives as a space.
    """
    if " " not in run_id:
        return run_id
    with create_session(scoped=False) as session:
        found = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    return run_id.replace(" ", "+") if found is None else run_id


def read_evaluation(instance: TaskInstance) -> tuple[EvaluationManifest, Samples | None]:
    """Return the manifest of what a task instance has done, and samples of it.

    Where they stand is told by the task instance's own XCom alone, and the manifest must name it in turn.

    :raises NothingToShow: there is no such thing, or it cannot be read.
    """
    with create_session(scoped=False) as session:  # given back before the store is asked, which may take its time
        location = _recorded(session, instance)
    uri = display(location.uri)
    with _errors_explained(location):
        storage = _impatient_storage(location)
        manifest = read_manifest(storage, location.uri)
    if manifest is None:
        raise NothingToShow(
            "The manifest cannot be read",
            f"{uri} is not a manifest that this version of the package knows. If the workers have a later version than "
            "the API server, bring the API server up to it.",
        )
    requester = Requester(**dataclasses.asdict(instance))
    if requester not in (manifest.request.requested_by, manifest.confirmed_by):
        raise NothingToShow(
            "Another run has written here since",
            f"{uri} now tells of {_named(manifest.confirmed_by or manifest.request.requested_by)}, where its report "
            "is. What this task instance came to is in its XCom 'summary'.",
        )
    # Beside the manifest, wherever that says that the output is: what stands in a store leads nowhere else.
    with _errors_explained(location):
        return manifest, read_samples(storage, location.uri.removesuffix(MANIFEST_SUFFIX))


def _recorded(session: Session, instance: TaskInstance) -> _Location:
    """Return what the task instance's XCom says of where its manifest stands."""
    found = session.scalars(
        XComModel.get_many(
            run_id=instance.run_id,
            key="manifest",
            dag_ids=instance.dag_id,
            task_ids=instance.task_id,
            map_indexes=instance.map_index,
            limit=1,
        )
    ).first()
    if found is None:
        raise _why_nothing_is_recorded(session, instance)
    value = XComModel.deserialize_value(found)
    if isinstance(value, Mapping):
        uri, aws_conn_id = value.get("uri"), value.get("aws_conn_id")
        if isinstance(uri, str) and uri.endswith(MANIFEST_SUFFIX) and isinstance(aws_conn_id, str | None):
            return _Location(uri, aws_conn_id)
    raise NothingToShow("No CLIP scores", "The XCom 'manifest' of this task instance does not tell of CLIP scores.")


def _why_nothing_is_recorded(session: Session, instance: TaskInstance) -> NothingToShow:
    state = session.scalar(
        select(TaskInstanceModel.state).where(
            TaskInstanceModel.dag_id == instance.dag_id,
            TaskInstanceModel.run_id == instance.run_id,
            TaskInstanceModel.task_id == instance.task_id,
            TaskInstanceModel.map_index == instance.map_index,
        )
    )
    if state in _FAILED:
        return NothingToShow(
            "No CLIP scores", "This task instance has failed, and has recorded no scores. Its log says why."
        )
    if state in _NOT_ENDED:
        return NothingToShow(
            "No CLIP scores yet",
            "This task instance has not ended. If it scores a data set, its report is here when it has.",
        )
    return NothingToShow(
        "No CLIP scores",
        "This task instance has scored no data set. Reports are on the tasks of ImageCLIPEvaluatorOperator, and on the "
        "merge task of a clip_evaluation_group.",
    )


def _impatient_storage(location: _Location) -> Storage:
    from botocore.config import Config

    access = aws_connection(location.aws_conn_id, [location.uri]).access
    retries = Config(retries={"total_max_attempts": _ATTEMPTS})
    config = retries if access.config is None else access.config.merge(retries)
    return Storage(dataclasses.replace(access, timeout_seconds=_SECONDS, config=config))


@contextmanager
def _errors_explained(location: _Location) -> Iterator[None]:
    """Say in words what keeps from reading there."""
    if not _reading.acquire(blocking=False):
        raise NothingToShow(
            "Too many wait for the store",
            "Other pages are waiting for the store as it is. Open this one again in a while.",
        )
    try:
        yield
    except ObjectNotFound:
        raise NothingToShow(
            "The manifest is gone",
            f"There is nothing at {display(location.uri)}. It was removed, as that of a shard is once the shards are "
            "one; or it is on a disk that Airflow's API server does not see. What this task instance came to is in "
            "its XCom 'summary'.",
        ) from None
    except ObjectTooLarge as error:
        raise NothingToShow("The manifest cannot be read", f"{error}.") from None
    except ClipOperatorError as error:
        connection = "" if location.aws_conn_id is None else f" with the connection {location.aws_conn_id!r}"
        raise NothingToShow(
            "The store cannot be read",
            f"{error}. It is Airflow's API server that reads it for this page,{connection or ' as boto3 finds it'}: "
            "what lets the workers in must let that server in, too.",
        ) from None
    finally:
        _reading.release()


def _named(requester: Requester | None) -> str:
    if requester is None:
        return "work that was asked for outside Airflow"
    return f"task {requester.task_id!r} of DAG {requester.dag_id!r}, run {requester.run_id!r}"
