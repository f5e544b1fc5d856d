"""The job: read a step, score every row, write the next step, prove it."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime

from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.inputs import check_outputs_apart, columns_of_folders, find_input
from clip_operator.inputs.image_access import image_loader
from clip_operator.job.confirmation import confirmed
from clip_operator.job.first_pass import Job, score_rows
from clip_operator.job.second_pass import publish_step, second_pass
from clip_operator.job.summary import log_summary
from clip_operator.machine.scratch import scratch_folder
from clip_operator.machine.stopping import stopped_by
from clip_operator.model import find_checkpoint
from clip_operator.proof.embeddings import claim_embeddings
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.publication import (
    OutputReplaced,
    build_manifest,
    claimed,
    publish_manifest,
    remove_outdated,
)
from clip_operator.proof.standing import look, version
from clip_operator.report import publish_report
from clip_operator.request import EvaluationRequest
from clip_operator.resume import discard_leftovers
from clip_operator.storage import Storage, display
from clip_operator.tables import check_conversion, file_type_of

log = logging.getLogger(__name__)


def evaluate(
    request: EvaluationRequest, storage: Storage | None = None, stop: threading.Event | None = None
) -> EvaluationManifest:
    """Score every row of ``request.input`` and write ``request.output`` and, last, its manifest.

    Does nothing but return the manifest if the output is there already and its manifest proves that it was made of the
    same input, by the same request, with the same model (``request.overwrite`` forces the work). If a task instance of
    Airflow asks, that it did is written into the manifest. Parameters are the request's fields::

        evaluate(EvaluationRequest(input="captions.jsonl", output="scored.jsonl", input_text_key="caption"))

    :param storage: where URIs lead; by default with boto3's own credentials.
    :param stop: set it, from any thread, to end the job soon with :class:`Cancelled`.
    :raises RequestError: the request cannot be carried out as it stands, whatever the data.
    :raises JobError: the job failed; the output was not touched.
    """
    storage, stop, started = storage or Storage(), stop or threading.Event(), datetime.now(UTC)
    output_type = file_type_of(request.output)
    images = image_loader(request, storage)
    with stopped_by(stop):
        data = find_input(storage, request.input, request.dialect)
    check_conversion(data.file_type, output_type)
    check_outputs_apart(storage, request, data)
    source = version(data.info)
    checkpoint = find_checkpoint(request.model, request.revision, storage)
    standing = look(storage, request)
    if done := standing.finished(source, checkpoint.digest):
        log.info("%s is complete already: same input, request and model. Nothing to do.", display(request.output))
        manifest = confirmed(storage, done, request, request.requested_by)
        discard_leftovers(storage, *request.outputs)
        return manifest
    standing.check_may_write()
    with (
        scratch_folder() as folder,
        claimed(storage, standing) as condition,
        ImageWorkers(images, storage, request.max_image_seconds, stop, upright=request.upright) as workers,
    ):
        claim_embeddings(storage, request, standing.embeddings)
        with stopped_by(stop):
            first = score_rows(Job(request, storage, images, workers, data, checkpoint, standing, stop), folder)
            step = second_pass(first.table, request, first.tally, columns_of_folders(data))
            embeddings = None if first.embeddings is None else first.embeddings.proved(storage, request)
        try:
            published = publish_step(storage, step, request, condition)
            published = replace(published, embeddings=embeddings)
            manifest = build_manifest(request, source, published, first.scored, started)
            if first.picked is not None:
                publish_report(storage, manifest, first.picked)
            remove_outdated(storage, standing, manifest)
            publish_manifest(storage, manifest)
        except OutputReplaced:
            first.continuation.discard()
            raise
    discard_leftovers(storage, *request.outputs)
    log_summary(manifest, first.hints)
    return manifest
