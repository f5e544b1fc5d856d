"""What a task instance has recorded of its work, read where it says that it stands."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance as TaskInstanceModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, select

from clip_operator.errors import ClipOperatorError, JobError
from clip_operator.operators.aws import aws_connection
from clip_operator.operators.failures import FAILURE
from clip_operator.proof.manifest import EvaluationManifest, read_manifest
from clip_operator.report import render
from clip_operator.report.samples import read_samples
from clip_operator.report.worst_rows import as_csv, read_worst_rows
from clip_operator.request import Requester
from clip_operator.steps import MANIFEST_SUFFIX, whole_manifest, worst_rows_uri
from clip_operator.storage import CloudAccess, ObjectNotFound, Storage, display, name_of, scheme_of
from clip_operator.web.connections import may_read_with
from clip_operator.web.failures import failure_in
from clip_operator.web.xcoms import IS_SMALL, STORED, plain_value

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from clip_operator.proof.manifest import EvaluationManifest
    from clip_operator.report.samples import Samples
    from clip_operator.web.failures import Failure

log = logging.getLogger(__name__)

# Of what the operator writes to, what is no more than a place for objects: no request goes to a host that a URI names.
_STORES = frozenset({"s3", "gs", "az", "abfs", "abfss", "file"})

# A person waits for the page.
_SECONDS = 4.0
_ATTEMPTS = 2


# All of Airflow's pages share one set of threads. Not all of them shall wait for a store that does not answer.
_reading = threading.BoundedSemaphore(8)

_FAILED = ("failed", "up_for_retry")
_NOT_ENDED = ("running", "queued", "scheduled", "deferred", "up_for_reschedule", "restarting")


NAME_IN_GRID = TaskInstanceModel.__table__.c["rendered_map_index"]
"""What Airflow calls an instance of a mapped task, if its DAG has a ``map_index_template``."""

# One answer to whatever is wrong, so that nobody learns from it what there is where the API server may read.
_NO_REPORT = (
    "The report cannot be shown",
    "Where the XCom 'manifest' of this task instance leads, the API server finds no manifest of it. It was removed, as "
    "that of a shard is once the shards are one; a later run has written in its place; it is on a disk that the API "
    "server does not see; or the API server cannot read there, or may not, with the connection that the XCom names. "
    "The API server's log says which. What this task instance came to is in its XCom 'summary'.",
)


class NothingToShow(Exception):
    """There is no report, for a reason that a person can read.

    :param title: what is the matter, in a few words.
    :param text: what happened, and what can be done.
    :param failure: why, if the task instance has left that.
    :param link: the address of what can be shown instead, relative to the report's own, and what that is.
    """

    def __init__(
        self, title: str, text: str, failure: Failure | None = None, link: tuple[str, str] | None = None
    ) -> None:
        super().__init__(title)
        self.title = title
        self.text = text
        self.failure = failure
        self.link = link


@dataclass(frozen=True)
class TaskInstance:
    """Which task instance a page is about. ``map_index`` is -1 where the task is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    @property
    def query(self) -> str:
        """What names it in the addresses of pages."""
        return urlencode({"run_id": self.run_id, "task_id": self.task_id, "map_index": self.map_index})


@dataclass(frozen=True)
class Location:
    """Where a manifest stands, and the connection that leads there.

    :param is_open: whether the pages may read with this connection.
    """

    uri: str
    aws_conn_id: str | None
    is_open: bool


def known_run_id(dag_id: str, run_id: str) -> str:
    """Return the id of the run that is meant.

    Airflow 3.1's UI writes an id into the address as it is, so that the + in it arrives as a space.
    """
    if " " not in run_id:
        return run_id
    with create_session(scoped=False) as session:
        found = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    return run_id.replace(" ", "+") if found is None else run_id


def report_page(instance: TaskInstance) -> str:
    """Return the report on what a task instance has done, an HTML page.

    :raises NothingToShow: there is no such thing, or it cannot be shown.
    """
    with create_session(scoped=False) as session:
        name = _name_in_grid(session, instance)
    with evaluation_of(instance) as found:
        samples = found.samples()
        has_list = samples is not None and found.storage.find(worst_rows_uri(found.place)) is not None
        return render(
            found.manifest,
            samples,
            all_runs="runs",
            requester=Requester(**dataclasses.asdict(instance)),
            instance_name=name,
            worst_rows=f"worst-rows?{instance.query}" if has_list else None,
        )


@contextmanager
def evaluation_of(instance: TaskInstance) -> Iterator[Evaluation]:
    """Give what a task instance has done, to be made a page of.

    Where its manifest stands is told by the task instance's own XCom alone, and the manifest must name it in turn.

    :raises NothingToShow: there is no such thing, it cannot be shown, or making a page of it fails.
    """
    with create_session(scoped=False) as session:  # given back before the store is asked, which may take its time
        location = _recorded(session, instance)
    with _failures_alike(instance):
        yield _found(instance, location)


def worst_rows(instance: TaskInstance) -> tuple[str, bytes]:
    """Return the list of the worst rows that belongs to a task instance's report: what to call the file, and CSV.

    :raises NothingToShow: there is no such thing, or it cannot be shown.
    """
    with evaluation_of(instance) as found:
        rows = read_worst_rows(found.storage, found.place)
        if rows is None:
            raise NothingToShow(
                "No list of the worst rows",
                "There is none beside the output that this version of the package knows. Steps that are scored with "
                "report=True have one, if this version of the package scored them, or a later one.",
            )
        # written anew: what others wrote there is no formula in a spreadsheet either
        return name_of(worst_rows_uri(found.place)), as_csv(rows)


def _recorded(session: Session, instance: TaskInstance) -> Location:
    """Return what the task instance's XCom says of where its manifest stands."""
    stored = stored_xcom(session, instance, "manifest")
    if stored is None:
        raise _why_nothing_is_recorded(session, instance)
    value = plain_value(stored)
    if isinstance(value, Mapping):
        uri, aws_conn_id = value.get("uri"), value.get("aws_conn_id")
        if isinstance(uri, str) and uri.endswith(MANIFEST_SUFFIX) and isinstance(aws_conn_id, str | None):
            is_open = may_read_with(session, aws_conn_id, instance.task_id, _is_of(TaskInstanceModel, instance))
            return Location(uri, aws_conn_id, is_open)
    raise NothingToShow("No CLIP scores", "The XCom 'manifest' of this task instance does not tell of CLIP scores.")


def stored_xcom(session: Session, instance: TaskInstance, key: str) -> str | None:
    """Return an XCom of the task instance as it is in the database, or None if there is none."""
    is_it = and_(_is_of(XComModel, instance), XComModel.key == key, IS_SMALL)
    found: str | None = session.scalar(select(STORED).where(is_it))
    return found


def _is_of(model: Any, instance: TaskInstance) -> ColumnElement[bool]:
    """Return which rows of one of Airflow's tables are of a task instance."""
    return and_(*(getattr(model, name) == value for name, value in dataclasses.asdict(instance).items()))


def _why_nothing_is_recorded(session: Session, instance: TaskInstance) -> NothingToShow:
    state = session.scalar(select(TaskInstanceModel.state).where(_is_of(TaskInstanceModel, instance)))
    if state == "upstream_failed":
        return NothingToShow("No CLIP scores", "A task before this one has failed, so that this one was not run.")
    if state in _FAILED:
        stored = stored_xcom(session, instance, FAILURE)
        failure = None if stored is None else failure_in(plain_value(stored))
        title = "This task has failed" if state == "failed" else "The last try has failed, and there will be another"
        if failure is None:
            return NothingToShow(title, "It has recorded neither scores nor a reason. Its log says more.")
        return NothingToShow(title, "It has recorded no scores. Its log says the same, and what came before.", failure)
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


def _name_in_grid(session: Session, instance: TaskInstance) -> str | None:
    """Return what Airflow calls an instance of a mapped task."""
    if instance.map_index < 0:
        return None
    found: str | None = session.scalar(select(NAME_IN_GRID).where(_is_of(TaskInstanceModel, instance)))
    return found or str(instance.map_index)


@dataclass(frozen=True)
class Evaluation:
    """The manifest of a task instance, and what stands beside it: the place is what its URI begins with."""

    storage: Storage
    manifest: EvaluationManifest
    place: str

    def samples(self) -> Samples | None:
        """Return the samples, if there are any."""
        # Beside the manifest, wherever that says that the output is: what stands in a store leads nowhere else.
        return read_samples(self.storage, self.place)


def _found(instance: TaskInstance, location: Location) -> Evaluation:
    if scheme_of(location.uri) not in _STORES:
        raise JobError(f"{display(location.uri)} is in no store that pages are made from")
    if not location.is_open:
        raise JobError(
            f"the DAG gives the task another connection than {location.aws_conn_id!r}, or a template; if the pages may "
            "read with it, name it in [clip_operator] page_connections"
        )
    storage = _impatient_storage(location)
    try:
        manifest = read_manifest(storage, location.uri)
    except ObjectNotFound:
        raise _merged(instance, location, storage) or JobError(f"{display(location.uri)} is gone") from None
    if manifest is None:
        raise JobError(
            f"{display(location.uri)} is not a manifest that this version of the package knows; if the workers have a "
            "later version than the API server, bring the API server up to it"
        )
    if Requester(**dataclasses.asdict(instance)) not in manifest.asked_for_by:
        raise JobError(f"{display(location.uri)} tells of other work: a later run's, most likely")
    return Evaluation(storage, manifest, location.uri.removesuffix(MANIFEST_SUFFIX))


def _merged(instance: TaskInstance, location: Location, storage: Storage) -> NothingToShow | None:
    """Return what to say of a shard that a merge of the same run has put into the step; None of anything else."""
    whole = whole_manifest(location.uri)
    try:
        manifest = None if whole is None else read_manifest(storage, whole[0])
    except ObjectNotFound:
        return None
    if whole is None or manifest is None or manifest.shards is None or manifest.shards.plan != whole[1]:
        return None
    of_this_run = [
        asker is not None and (asker.dag_id, asker.run_id) == (instance.dag_id, instance.run_id)
        for asker in manifest.asked_for_by
    ]
    if not any(of_this_run):
        return None
    merge = manifest.confirmed_by if of_this_run[1] else None
    link = None
    if merge is not None:
        step = TaskInstance(merge.dag_id, merge.run_id, merge.task_id, merge.map_index)
        link = (f"report?{step.query}", f"The step's report, of {merge.task_id}")
    text = (
        "The shards have become one step, and what this one left for that was removed. The step's report, on the task "
        "that merged them, tells of its rows, too. What this shard came to is in its XCom 'summary'."
    )
    return NothingToShow("This shard is merged: see the step's report", text, link=link)


def _impatient_storage(location: Location) -> Storage:
    from botocore.config import Config

    access = aws_connection(location.aws_conn_id, [location.uri]).access
    retries = Config(retries={"total_max_attempts": _ATTEMPTS})
    config = retries if access.config is None else access.config.merge(retries)
    return Storage(
        dataclasses.replace(access, timeout_seconds=_SECONDS, config=config),
        CloudAccess(timeout_seconds=_SECONDS, max_tries=_ATTEMPTS, retry_seconds=_SECONDS),
    )


@contextmanager
def _failures_alike(instance: TaskInstance) -> Iterator[None]:
    """Give one answer to whatever fails; the log says what it was."""
    if not _reading.acquire(blocking=False):
        raise NothingToShow(
            "Too many wait for the store",
            "Other pages are waiting for the store as it is. Open this one again in a while.",
        )
    try:
        yield
    except NothingToShow:
        raise
    except Exception as error:  # whoever wrote what is read there chose what it does to drivers and parsers
        trace = None if isinstance(error, ClipOperatorError) else error
        log.warning("No report on %r: %s", instance, error, exc_info=trace)
        raise NothingToShow(*_NO_REPORT) from None
    finally:
        _reading.release()
