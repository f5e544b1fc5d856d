"""Which step a task reads that asks for the latest one."""

from __future__ import annotations

import logging

from clip_operator.errors import JobError
from clip_operator.inputs import find_input
from clip_operator.proof.claims import read_claim
from clip_operator.proof.standing import proof
from clip_operator.request import Requester
from clip_operator.steps import StepSeries
from clip_operator.storage import ObjectNotFound, Storage, display

log = logging.getLogger(__name__)


def latest_step(storage: Storage, series: StepSeries, requester: Requester | None) -> tuple[int, str]:
    """Return the step that a task which asks for the latest one should read, and its URI.

    That is the highest complete step that the same task has not written itself in this run: a retry reads what the
    first try read, not what it wrote, and so do all instances of a mapped task, in whatever order they come.

    :raises JobError: there is no step to read.
    """
    latest = None
    existing = series.existing(storage)
    for step, uri in existing.items():
        manifest = proof(storage, uri)
        # A proven step is complete, whatever claims its writer left; only for an unproven one does a claim tell more.
        claim = None if manifest is not None else read_claim(storage, uri)
        asked = claim if manifest is None else manifest.request
        writer = None if asked is None else asked.requested_by
        if requester is not None and (writer == requester or requester.runs_beside(writer)):
            log.info("Step %d is this task's own, of this run; reading the step before it", step)
            latest = None
        elif claim is not None:
            log.info("Step %d is not complete: it is being written, or its writer died", step)
        elif latest is None:
            latest = step
    if latest is not None:
        return latest, existing[latest]
    if not series.first_entry_file_name or not _is_there(storage, series.first_entry_file_name):
        raise JobError(
            f"there is no step to read: {display(series.cache_path)} holds no complete step, and the first entry "
            f"{display(series.first_entry_file_name) or '(not given)'} does not exist"
        )
    return 0, series.first_entry_file_name


def _is_there(storage: Storage, uri: str) -> bool:
    try:
        find_input(storage, uri)
    except ObjectNotFound:
        return False
    return True
