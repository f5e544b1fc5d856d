"""Which outputs are complete and whose they are: manifests and claims beside them in the store.

A manifest is written after its output and proves it. A claim is written before an output and removed after the
manifest: where a job died in between, it tells the next try that the output is this job's own. Where a manifest matches
the object that stands there, it decides, and a claim that was left behind is not asked. A filtered step is proved by
the manifest of the output it is of, and has a claim of its own for as long.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from clip_operator.errors import JobError, Reason
from clip_operator.proof.manifest import EvaluationManifest, ObjectVersion, parse_manifest
from clip_operator.request import ErrorBudget, EvaluationRequest, Requester
from clip_operator.steps import claim_uri, is_in_parts, manifest_uri, part_files
from clip_operator.storage import (
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    Storage,
    StorageError,
    Unchanged,
    display,
)

# Each time that a manifest cannot be written, another run has written one. So many do not come at once.
_MOST_PUBLICATIONS = 20

log = logging.getLogger(__name__)


class Claim(BaseModel):
    """Who is about to write an output."""

    model_config = ConfigDict(frozen=True)

    requested_by: Requester | None
    claimed_at: datetime


def version(info: ObjectInfo) -> ObjectVersion:
    """Return the object's version as the manifest records it."""
    return ObjectVersion(uri=info.uri, size=info.size, etag=info.etag)


def find_output(storage: Storage, output: str) -> ObjectInfo | None:
    """Return the version of an output, of one object or of part files, or None if there is none."""
    if not is_in_parts(output):
        return storage.find(output)
    parts = part_files(storage, output)
    return ObjectInfo.of_many(output, parts) if parts else None


def proof(storage: Storage, output: str) -> EvaluationManifest | None:
    """Return the manifest of the object that stands at ``output``, or None.

    None also where there is a manifest, but of another version of the object: it says nothing of this one.
    """
    info = find_output(storage, output)
    if info is None:
        return None
    manifest = _read_manifest(storage, output)
    return manifest if manifest is not None and manifest.output == version(info) else None


def _read_manifest(storage: Storage, output: str) -> EvaluationManifest | None:
    try:
        return parse_manifest(storage.read(manifest_uri(output), max_bytes=1 << 20))
    except ObjectNotFound:
        return None


def _stands(storage: Storage, known: ObjectVersion) -> bool:
    """Tell whether this version of the object stands there still."""
    found = storage.find(known.uri)
    return found is not None and version(found) == known


def finished(
    storage: Storage, request: EvaluationRequest, source: ObjectInfo, digest: str
) -> EvaluationManifest | None:
    """Return the manifest that proves that the request's work is done already, or None if it must be done."""
    manifest = proof(storage, request.output)
    if manifest is None or not manifest.proves(request, version(source), digest):
        return None
    if manifest.filtered is not None and not _stands(storage, manifest.filtered.output):
        return None
    failures = manifest.rows.failures
    if ErrorBudget.of(request).excesses(failures, manifest.rows.total):
        return None  # it was made when more errors were allowed
    if request.rescore == "failed" and any(reason.retryable and reason in failures for reason in Reason):
        return None
    return manifest


def rescorable(
    storage: Storage, request: EvaluationRequest, source: ObjectInfo, digest: str, precision: str
) -> EvaluationManifest | None:
    """Return the manifest of the output whose scores the request wants to keep, or None if there is none.

    Its scores must be those that the request would give the same rows; what may be read, and how many errors are too
    many, may be another matter.
    """
    if request.rescore is None:
        return None
    manifest = proof(storage, request.output)
    if manifest is None:
        log.info("There is no output to rescore; all rows are scored")
        return None
    theirs = manifest.request
    alike = (
        manifest.input == version(source)
        and manifest.model.digest == digest
        and manifest.model.precision == precision
        and theirs.score_fingerprint() == request.score_fingerprint()
    )
    if not alike:
        log.warning(
            "%s was made of another input, by another model or by a request that scores otherwise, so none of its "
            "scores can be kept; all rows are scored",
            display(request.output),
        )
    return manifest if alike else None


def check_may_write(storage: Storage, request: EvaluationRequest) -> None:
    """Raise :class:`JobError` if the output, or the filtered one, exists and is another's.

    An output is a job's own if the same task of the same DAG wrote it, in whatever run, or, without Airflow, if the
    package's command line or Python interface wrote it. A filtered output is whose the manifest is that names it.
    """
    if request.overwrite:
        return
    if find_output(storage, request.output) is not None:
        _check_own(storage, request, request.output, proof(storage, request.output))
    if request.filtered_output is not None and (there := storage.find(request.filtered_output)) is not None:
        manifest = _read_manifest(storage, request.output)
        names_it = manifest is not None and manifest.filtered is not None and manifest.filtered.output == version(there)
        _check_own(storage, request, request.filtered_output, manifest if names_it else None)


def _check_own(storage: Storage, request: EvaluationRequest, uri: str, manifest: EvaluationManifest | None) -> None:
    """Raise :class:`JobError` unless the manifest, or where there is none the claim on the output, is this job's."""
    whose = "no manifest says that this job wrote it"
    if manifest is not None:
        writer = manifest.request.requested_by
        own = _task(writer) == _task(request.requested_by)
        whose = "it was written outside Airflow"
        if writer is not None:
            whose = f"task {writer.task_id!r} of DAG {writer.dag_id!r} wrote it"
    else:
        claim = read_claim(storage, request.output)
        own = claim is not None and _task(claim.requested_by) == _task(request.requested_by)
    if not own:
        raise JobError(
            f"{display(uri)} exists already and is not this job's: {whose}. "
            "Set overwrite=True to replace it, or write to another place"
        )


def write_claim(storage: Storage, output: str, requester: Requester | None) -> None:
    """Say beside an output who is about to write it."""
    claim = Claim(requested_by=requester, claimed_at=datetime.now(UTC))
    storage.write(claim.model_dump_json().encode(), claim_uri(output))


@contextmanager
def claimed(storage: Storage, request: EvaluationRequest) -> Iterator[Unchanged]:
    """Claim the output while it is written. Also the first proof that the place can be written at all.

    The claim goes if nothing was written. Else it stays until the manifest is there and the caller removes it.

    :return: the condition under which the output may be written: that nothing else has written it meanwhile.
    """
    before = _standing(storage, request)
    write_claim(storage, request.output, request.requested_by)
    try:
        yield Unchanged(before[0])
    except BaseException:
        # What was not touched needs no claim. If the store is gone, the claim stays, and does no harm.
        with suppress(StorageError):
            if _standing(storage, request) == before:
                storage.delete(claim_uri(request.output))
        raise


def _standing(storage: Storage, request: EvaluationRequest) -> tuple[ObjectInfo | None, ObjectInfo | None]:
    """Return the versions of the output and the filtered one: an output may be replaced by one with the same ETag."""
    filtered = None if request.filtered_output is None else storage.find(request.filtered_output)
    return find_output(storage, request.output), filtered


def publish_output(storage: Storage, path: Path, uri: str, condition: Unchanged | None) -> ObjectInfo:
    """Write an output, whole and at once.

    :param condition: what :func:`claimed` gave for it; None for a filtered output, which follows the output it is of.
    :raises JobError: another run has written it while this one was scoring.
    """
    try:
        return storage.upload(path, uri, condition)
    except ObjectChanged:
        raise JobError(
            f"another run has written {display(uri)} while this one was scoring. What it wrote stands, and "
            "this run has written nothing; the next try finds the work done, if that was the same"
        ) from None


def publish_manifest(storage: Storage, manifest: EvaluationManifest) -> None:
    """Write the manifest beside its output. The last act of a job.

    Another run may have taken this one for dead and replaced the output. Then the manifest that belongs there is that
    run's, also where it is still to come.

    :raises JobError: the output is not this run's any more, or the store refuses the manifest again and again.
    """
    uri = manifest_uri(manifest.output.uri)
    data = manifest.model_dump_json(indent=2).encode() + b"\n"
    for _ in range(_MOST_PUBLICATIONS):
        before = storage.find(uri)
        standing = find_output(storage, manifest.output.uri)
        if standing is None or version(standing) != manifest.output:
            raise JobError(
                f"another run has replaced {display(manifest.output.uri)} before this one had proved it. What that run "
                "wrote stands, and the next try finds the work done, if it was the same"
            )
        try:
            storage.write(data, uri, Unchanged(before))
        except ObjectChanged:
            continue  # another run has proved the output that it wrote: is that the one which stands there?
        return
    raise JobError(
        f"{display(uri)} cannot be written: {_MOST_PUBLICATIONS} times the store has said that another run wrote it "
        "meanwhile. Either many runs write there, or the store does not keep to the conditions of writes (If-Match)"
    )


def confirm(storage: Storage, manifest: EvaluationManifest, requester: Requester) -> EvaluationManifest:
    """Write into the manifest that this task instance, too, has asked for the work and found it done."""
    confirmed = manifest.model_copy(update={"confirmed_by": requester, "confirmed_at": datetime.now(UTC)})
    publish_manifest(storage, confirmed)
    return confirmed


def read_claim(storage: Storage, output: str) -> Claim | None:
    """Return the claim on an output, or None if there is none."""
    try:
        return Claim.model_validate_json(storage.read(claim_uri(output), max_bytes=1 << 20))
    except (ObjectNotFound, ValidationError):
        return None


def _task(requester: Requester | None) -> tuple[str, str] | None:
    return None if requester is None else (requester.dag_id, requester.task_id)
