"""Claims: who has begun to write an output. One is written before it, and removed after the manifest."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from clip_operator.errors import JobError
from clip_operator.request import Requester
from clip_operator.steps import claim_uri
from clip_operator.storage import ObjectNotFound, Storage, display


class Claim(BaseModel):
    """Who is about to write an output."""

    model_config = ConfigDict(frozen=True)

    requested_by: Requester | None
    claimed_at: datetime


def write_claim(storage: Storage, output: str, requester: Requester | None) -> None:
    """Say beside an output who is about to write it.

    :raises JobError: nothing that is written there could be proved.
    """
    claim = Claim(requested_by=requester, claimed_at=datetime.now(UTC))
    written = storage.write(claim.model_dump_json().encode(), claim_uri(output))
    if not written.etag:
        storage.delete(written.uri)
        raise JobError(
            f"the store of {display(output)} tells no versions apart, so no manifest could prove what "
            "is written there; write to another store"
        )


def read_claim(storage: Storage, output: str) -> Claim | None:
    """Return the claim on an output, or None if there is none."""
    try:
        return Claim.model_validate_json(storage.read(claim_uri(output), max_bytes=1 << 20))
    except (ObjectNotFound, ValidationError):
        return None
