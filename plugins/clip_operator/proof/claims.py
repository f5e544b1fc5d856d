"""Claims: who has begun to write an output. One is written before it, and removed after the manifest."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from clip_operator.errors import JobError
from clip_operator.request import Requester
from clip_operator.steps import claim_uri
from clip_operator.storage import (
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    Storage,
    Unchanged,
    display,
)

_MOST_BYTES = 1 << 20


class Claim(BaseModel):
    """Who is about to write an output."""

    model_config = ConfigDict(frozen=True)

    requested_by: Requester | None
    claimed_at: AwareDatetime


def write_claim(storage: Storage, output: str, requester: Requester | None) -> Claim:
    """Say beside an output who is about to write it.

    :raises JobError: another instance of the same mapped task has said so in this run, or nothing that is written there
        could be proved.
    """
    claim = Claim(requested_by=requester, claimed_at=datetime.now(UTC))
    written = _write_claim(storage, claim, output)
    if not written.etag:
        storage.delete(written.uri)
        raise JobError(
            f"the store of {display(output)} tells no versions apart, so no manifest could prove what "
            "is written there; write to another store"
        )
    return claim


def _write_claim(storage: Storage, claim: Claim, output: str) -> ObjectInfo:
    data, uri, requester = claim.model_dump_json().encode(), claim_uri(output), claim.requested_by
    if requester is not None and requester.is_mapped:
        before = storage.find(uri)
        if before is not None:
            check_claim(storage, output, requester)
        try:
            return storage.write(data, uri, Unchanged(before))
        except ObjectChanged:  # somebody has claimed it this very moment
            check_claim(storage, output, requester)
    return storage.write(data, uri)


def read_claim(storage: Storage, output: str) -> Claim | None:
    """Return the claim on an output, or None if there is none, or what is there is none."""
    try:
        return Claim.model_validate_json(storage.read(claim_uri(output), _MOST_BYTES))
    except (ObjectNotFound, ObjectTooLarge, ValidationError):
        return None


def check_claim(storage: Storage, output: str, requester: Requester | None) -> None:
    """Raise :class:`JobError` if another instance of the requester's own mapped task has claimed the output in this
    run."""
    if requester is not None and requester.is_mapped and (claim := read_claim(storage, output)) is not None:
        check_alone(output, requester, claim.requested_by)


def check_alone(output: str, requester: Requester | None, *others: Requester | None) -> None:
    """Raise :class:`JobError` if one of those that an output belongs to is another instance of the requester's own
    mapped task in this run, which it would go on to name as its own."""
    other = next((other for other in others if requester is not None and requester.runs_beside(other)), None)
    if other is not None and requester is not None:
        raise JobError(
            f"{display(output)} is the output of instance {other.map_index} of this mapped task in this run, and "
            f"instance {requester.map_index} would replace it. Give each instance an output of its own: map cache_path "
            "or file_name_prefix, too, or have one of them hold {{ ti.map_index }}"
        )
