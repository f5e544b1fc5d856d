"""What stands at an output: whether it is complete, whose it is, and what a job may do there.

A manifest is written after its output and proves it. A claim is written before an output and removed after the
manifest: where a job died in between, it tells the next try that the output is this job's own. Where a manifest matches
the object that stands there, it decides, and a claim that was left behind is not asked. A selection of the output's
rows, the filtered step or the rejected rows, is proved by the manifest of the output, and has a claim of its own for as
long.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from clip_operator.errors import JobError, Reason
from clip_operator.proof.claims import Claim, check_alone, read_claim
from clip_operator.proof.embeddings import EmbeddingsFolder, look_at_embeddings
from clip_operator.proof.manifest import EvaluationManifest, ObjectVersion, read_manifest
from clip_operator.request import ErrorBudget, EvaluationRequest, Requester
from clip_operator.steps import is_in_parts, manifest_uri, part_files
from clip_operator.storage import ObjectInfo, ObjectNotFound, ObjectTooLarge, Storage, display

log = logging.getLogger(__name__)


def version(info: ObjectInfo) -> ObjectVersion:
    """Return the object's version as the manifest records it."""
    return ObjectVersion(uri=info.uri, size=info.size, etag=info.etag)


def find_output(storage: Storage, output: str) -> ObjectInfo | None:
    """Return the version of an output, of one object or of part files, or None if there is none."""
    if not is_in_parts(output):
        return storage.find(output)
    parts = part_files(storage, output)
    return ObjectInfo.of_many(output, parts) if parts else None


def find_manifest(storage: Storage, output: str) -> EvaluationManifest | None:
    """Return the manifest beside an output, whatever it proves, or None if there is none of ours."""
    try:
        return read_manifest(storage, manifest_uri(output))
    except ObjectNotFound:
        return None
    except ObjectTooLarge as error:
        log.warning("What stands in the place of a manifest is none of ours: %s", error)
        return None


def proof(storage: Storage, output: str) -> EvaluationManifest | None:
    """Return the manifest of the object that stands at ``output``, or None.

    None also where there is a manifest, but of another version of the object: it says nothing of this one.
    """
    found = find_output(storage, output)
    return None if found is None else _of(find_manifest(storage, output), found)


def _of(manifest: EvaluationManifest | None, found: ObjectInfo | None) -> EvaluationManifest | None:
    """Return the manifest if it is of this version of the output."""
    proves = manifest is not None and found is not None and manifest.output.is_surely(version(found))
    return manifest if proves else None


@dataclass(frozen=True)
class Standing:
    """What stands where a request writes, at the moment when it was looked at.

    :param output: the version of the output; None where there is none.
    :param selections: the versions of the selections of its rows that the request asks for; None where there is none.
    :param manifest: what stands beside the output, whatever it proves.
    :param claim: who has begun to write the output; looked up where no manifest proves what stands there, and for an
        instance of a mapped task.
    :param embeddings: what stands in the folder for embeddings; None where none are asked for.
    """

    request: EvaluationRequest
    output: ObjectInfo | None
    selections: tuple[ObjectInfo | None, ...]
    manifest: EvaluationManifest | None
    claim: Claim | None
    embeddings: EmbeddingsFolder | None = None

    @property
    def proof(self) -> EvaluationManifest | None:
        """The manifest of the output that stands there."""
        return _of(self.manifest, self.output)

    @property
    def is_proved(self) -> bool:
        """Whether the manifest is of what stands there, so that a claim tells nothing more."""
        return self.proof is not None and all(found is None or self._names(found) for found in self.selections)

    def _names(self, found: ObjectInfo) -> bool:
        """Tell whether the manifest names this version of a selection."""
        named = () if self.manifest is None else self.manifest.selections
        return any(selection.is_surely(version(found)) for selection in named)

    def finished(self, source: ObjectVersion, digest: str) -> EvaluationManifest | None:
        """Return the manifest that proves that the request's work is done already, or None if it must be done."""
        manifest = self.proof
        if self.request.overwrite or manifest is None or not manifest.proves(self.request, source, digest):
            return None
        if not all(found is not None and self._names(found) for found in self.selections):
            return None
        if self.embeddings is not None and not self.embeddings.is_proved_by(manifest):
            return None
        failures = manifest.rows.failures
        if ErrorBudget.of(self.request).excesses(failures, manifest.rows.total):
            return None  # it was made when more errors were allowed
        if self.request.rescore == "failed" and any(reason.retryable and reason in failures for reason in Reason):
            return None
        return manifest

    def rescorable(self, source: ObjectVersion, digest: str, precision: str) -> EvaluationManifest | None:
        """Return the manifest of the output whose scores the request wants to keep, or None if there is none.

        Its scores must be those that the request would give the same rows; what may be read, and how many errors are
        too many, may be another matter.
        """
        if self.request.rescore is None:
            return None
        manifest = self.proof
        if manifest is None:
            log.info("There is no output to rescore; all rows are scored")
            return None
        alike = (
            manifest.input.is_surely(source)
            and manifest.model.digest == digest
            and manifest.model.precision == precision
            and manifest.request.score_fingerprint() == self.request.score_fingerprint()
            and manifest.request.shard == self.request.shard
        )
        if not alike:
            log.warning(
                "%s was made of another input or other rows of it, by another model or by a request that scores "
                "otherwise, so none of its scores can be kept; all rows are scored",
                display(self.request.output),
            )
        return manifest if alike else None

    def check_may_write(self) -> None:
        """Raise :class:`JobError` if the output, or a selection of its rows, exists and is another's.

        An output is a job's own if the same task of the same DAG wrote it, in whatever run, or, without Airflow, if the
        package's command line or Python interface wrote it. A selection is whose the manifest is that names it.
        Of a mapped task's instances in one run each is another, and none may replace what is the other's.
        """
        self.check_alone()
        if self.embeddings is not None:
            self.embeddings.check_may_write(self.request)
        if self.request.overwrite:
            return
        if self.output is not None:
            self._check_own(self.output, self.proof)
        for found in self.selections:
            if found is not None:
                self._check_own(found, self.manifest if self._names(found) else None)

    def check_alone(self) -> None:
        """Raise :class:`JobError` if another instance of the same mapped task has written, found done or claimed the
        output in this run."""
        manifest = self.proof
        if manifest is not None:
            check_alone(self.request.output, self.request.requested_by, *manifest.asked_for_by)
        if self.claim is not None:
            check_alone(self.request.output, self.request.requested_by, self.claim.requested_by)

    def _check_own(self, found: ObjectInfo, manifest: EvaluationManifest | None) -> None:
        """Raise :class:`JobError` unless the manifest, or where there is none the claim, is this job's."""
        whose = "no manifest says that this job wrote it"
        if manifest is not None:
            writer = manifest.request.requested_by
            own = _task(writer) == _task(self.request.requested_by)
            whose = "it was written outside Airflow"
            if writer is not None:
                whose = f"task {writer.task_id!r} of DAG {writer.dag_id!r} wrote it"
        else:
            own = self.claim is not None and _task(self.claim.requested_by) == _task(self.request.requested_by)
        if not own:
            raise JobError(
                f"{display(found.uri)} exists already and is not this job's: {whose}. "
                "Set overwrite=True to replace it, or write to another place"
            )


def look(storage: Storage, request: EvaluationRequest) -> Standing:
    """Look at what stands where a request writes."""
    output = find_output(storage, request.output)
    selections = tuple(map(storage.find, request.selections))
    manifest, embeddings = find_manifest(storage, request.output), look_at_embeddings(storage, request)
    standing = Standing(request, output, selections, manifest, claim=None, embeddings=embeddings)
    is_mapped = request.requested_by is not None and request.requested_by.is_mapped
    if standing.is_proved and not is_mapped:
        return standing
    return replace(standing, claim=read_claim(storage, request.output))


def _task(requester: Requester | None) -> tuple[str, str] | None:
    return None if requester is None else (requester.dag_id, requester.task_id)
