"""How an output is claimed, written, and proved by a manifest, so that whatever happens in between can be told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.proof.claims import check_claim, read_claim, write_claim
from clip_operator.proof.manifest import (
    Embeddings,
    EvaluationManifest,
    FilteredStep,
    ObjectVersion,
    RejectedStep,
    Scored,
)
from clip_operator.proof.signing import signed
from clip_operator.proof.standing import Standing, find_output, look, version
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.steps import claim_uri, manifest_uri, report_uris
from clip_operator.storage import (
    AccessDenied,
    ObjectChanged,
    ObjectInfo,
    Storage,
    StorageError,
    Unchanged,
    canonical,
    display,
    parent,
)

log = logging.getLogger(__name__)

# Each time that a manifest cannot be written, another run has written one. So many do not come at once.
_MOST_PUBLICATIONS = 20


class OutputReplaced(JobError):
    """Another run has written the output while this one was at work. What that one wrote stands."""


@dataclass(frozen=True)
class Published:
    """A step as it stands in the store.

    :param output: its version.
    :param filtered: the step of the rows that a filter keeps, if that was asked for.
    :param rejected: the step of the others, if that was asked for.
    :param embeddings: those of its rows, if they were asked for.
    """

    output: ObjectVersion
    filtered: FilteredStep | None = None
    rejected: RejectedStep | None = None
    embeddings: Embeddings | None = None


@contextmanager
def claimed(storage: Storage, before: Standing) -> Iterator[Unchanged]:
    """Claim the output while it is written. Also the first proof that the place can be written at all.

    The claim goes if nothing was written, or another run has proved what stands there. Else it stays until the manifest
    is there and the caller removes it.

    :param before: what stood there when the job was found free to write.
    :return: the condition under which the output may be written: that nothing else has written it meanwhile.
    :raises JobError: the output is that of another instance of the same mapped task in this run.
    """
    request = before.request
    claim = write_claim(storage, request.output, request.requested_by)
    try:
        if request.requested_by is not None and request.requested_by.is_mapped:
            look(storage, request).check_alone()  # one that has found it done did so before the claim, or sees it
        yield Unchanged(before.output)
    except BaseException:
        # What was not touched needs no claim. If the store is gone, the claim stays, and does no harm. The selections
        # of its rows tell it, too: an output may be replaced by one with the same ETag.
        with suppress(StorageError):
            now = look(storage, request)
            is_untouched = (now.output, now.selections) == (before.output, before.selections)
            if (is_untouched or now.is_proved) and read_claim(storage, request.output) == claim:
                storage.delete(claim_uri(request.output))
        raise


def publish_output(storage: Storage, path: Path, uri: str, condition: Unchanged | None) -> ObjectInfo:
    """Write an output, whole and at once.

    :param condition: what :func:`claimed` gave for it; None for a selection of its rows, which follows the output.
    :raises OutputReplaced: another run has written it while this one was scoring.
    """
    try:
        return storage.upload(path, uri, condition)
    except ObjectChanged:
        raise OutputReplaced(
            f"another run has written {display(uri)} while this one was scoring. What it wrote stands, and "
            "this run has written nothing; the next try finds the work done, if that was the same"
        ) from None


def build_manifest(
    request: EvaluationRequest,
    source: ObjectVersion,
    published: Published,
    scored: Scored,
    started: datetime,
    confirmed_by: Requester | None = None,
) -> EvaluationManifest:
    """Return the manifest of a step that stands complete in its place.

    :param source: the version of the input.
    :param started: when the work on it began.
    :param confirmed_by: who asked for the step, where that is not who asked for the scores.
    """
    finished = datetime.now(UTC)
    return EvaluationManifest(
        **dict(scored),
        input=source,
        output=published.output,
        output_columns=[request.output_key],
        filtered=published.filtered,
        rejected=published.rejected,
        embeddings=published.embeddings,
        request=request,
        started_at=started,
        finished_at=finished,
        duration_seconds=round((finished - started).total_seconds(), 3),
        confirmed_by=confirmed_by,
        confirmed_at=None if confirmed_by is None else finished,
    )


def remove_outdated(storage: Storage, before: Standing, manifest: EvaluationManifest) -> None:
    """Remove what belongs to the output that stood there before, where the one which is to be proved has nothing in its
    place: a filtered step and rejected rows, which would be read as the latest; the report and what belongs to it. Of
    embeddings it says that they stay.

    Such a step goes only if it is the very version that the old manifest names, and stands in the output's folder:
    what is read in a store does not lead to the removal of anything elsewhere.
    """
    output = manifest.output.uri
    own = {canonical(uri) for uri in manifest.request.outputs}
    for old in () if before.manifest is None else before.manifest.selections:
        found = None if canonical(old.uri) in own else storage.find(old.uri)
        if found is None or version(found) != old:
            continue
        if canonical(parent(old.uri)) == canonical(parent(output)):
            log.info("%s holds rows of an output that was replaced, and is removed", display(old.uri))
            storage.delete(old.uri)
            storage.delete(claim_uri(old.uri))
        else:
            log.warning("%s holds rows of an output that was replaced: remove it", display(old.uri))
    held = None if before.manifest is None or before.manifest.embeddings is None else before.manifest.embeddings.folder
    if held is not None and canonical(held.uri) != canonical(manifest.request.embeddings_path or ""):
        log.warning("%s holds the embeddings of an output that was replaced: remove it", display(held.uri))
    if not manifest.request.report and before.output is not None:
        try:
            for uri in report_uris(output):
                storage.delete(uri)
        except AccessDenied as error:  # no next task reads them
            log.warning("The report on the output that was replaced could not be removed: %s", error)


def publish_manifest(storage: Storage, manifest: EvaluationManifest) -> None:
    """Write the manifest beside its output. The last act of a job.

    Another run may have taken this one for dead and replaced the output. Then the manifest that belongs there is that
    run's, also where it is still to come.

    :raises OutputReplaced: the output is not this run's any more.
    :raises JobError: the store refuses the manifest again and again.
    """
    uri = manifest_uri(manifest.output.uri)
    data = signed(manifest.model_dump_json(indent=2).encode() + b"\n", "manifest", uri)
    for _ in range(_MOST_PUBLICATIONS):
        before = storage.find(uri)
        standing = find_output(storage, manifest.output.uri)
        if standing is None or version(standing) != manifest.output:
            raise OutputReplaced(
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
        "meanwhile. See to it that one run at a time writes there, and run the task again"
    )


def confirm(
    storage: Storage, manifest: EvaluationManifest, requester: Requester | None, *, even_unasked: bool = False
) -> EvaluationManifest:
    """Write into the manifest that this task instance, too, has asked for the work and found it done.

    :param even_unasked: write it also where no task instance asks, because it says something else than the one that
        stands there.
    :return: the manifest as it stands then; without a task instance, as it was given.
    :raises JobError: another instance of the same mapped task is about to replace it in this run.
    """
    if requester is None:
        if even_unasked:
            publish_manifest(storage, manifest)
        return manifest
    confirmed = manifest.model_copy(update={"confirmed_by": requester, "confirmed_at": datetime.now(UTC)})
    publish_manifest(storage, confirmed)
    check_claim(storage, manifest.output.uri, requester)
    return confirmed
