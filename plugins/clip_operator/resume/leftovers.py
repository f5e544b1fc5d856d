"""What a run that died has left in the store: resume points, a claim, uploads that never ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from clip_operator.errors import JobError
from clip_operator.proof.claims import Claim, read_claim
from clip_operator.proof.standing import proof
from clip_operator.steps import (
    claim_uri,
    is_in_parts,
    objects_beside,
    output_left_beside,
    part_files,
    resume_prefix,
    shards_prefix,
)
from clip_operator.storage import AccessDenied, ObjectInfo, Storage, StorageError, display

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leftovers:
    """What is left beside one output.

    :param output: its URI.
    :param is_complete: the output stands there with a manifest that proves it.
    :param claim: says who began to write it, and when.
    :param resume_points: the objects that hold saved results.
    :param shards: the objects that shards have left for a merge.
    :param unfinished_uploads: uploads of the output or of what belongs to it that neither ended nor were given up.
    """

    output: str
    is_complete: bool
    claim: Claim | None
    resume_points: list[ObjectInfo]
    shards: list[ObjectInfo]
    unfinished_uploads: int

    def __bool__(self) -> bool:
        return bool(self.claim or self.resume_points or self.shards or self.unfinished_uploads)


def find_leftovers(storage: Storage, place: str) -> Iterator[Leftovers]:
    """Yield what is left of each output at or below a place.

    :param place: the URI of an output, or, with a slash at its end, of a folder.
    """
    outputs = {output for info in storage.list(place) if (output := output_left_beside(info.uri))}
    if not place.endswith("/"):
        outputs = {output for output in outputs if output == place} | {place}
    for output in sorted(outputs):
        points = list(storage.list(resume_prefix(output)))
        left = Leftovers(
            output=output,
            is_complete=proof(storage, output) is not None,
            claim=read_claim(storage, output),
            resume_points=points,
            shards=list(storage.list(shards_prefix(output))),
            unfinished_uploads=sum(_count_unfinished_uploads(storage, uri) for uri in _written_by_a_run(output)),
        )
        if left:
            yield left


def check_is_there(storage: Storage, place: str) -> None:
    """Make sure that a place is one where something could have been left, and not a misspelled one.

    :param place: as :func:`find_leftovers` takes it.
    :raises JobError: there is no such folder, or neither an output nor anything that belongs to one.
    """
    if place.endswith("/"):
        if not storage.has_folder(place):
            raise JobError(f"there is no folder {display(place)}; in an object store, that is one with nothing in it")
        return
    if any(storage.find(uri) is not None for uri in (place, *objects_beside(place))):
        return
    if is_in_parts(place) and part_files(storage, place):
        return
    if storage.has_folder(f"{place}/"):
        raise JobError(f"{display(place)} is a folder: name it with a slash at its end, as in {display(place)}/")
    raise JobError(
        f"there is no output at {display(place)}, and nothing that belongs to one; name an output, or a folder with a "
        "slash at its end"
    )


def discard_leftovers(storage: Storage, *outputs: str) -> None:
    """Remove everything that a dead run may have left beside its outputs. Where that fails, say so and go on."""
    for output in outputs:
        try:
            storage.delete_folder(resume_prefix(output))
            storage.delete_folder(shards_prefix(output))
            storage.delete(claim_uri(output))
            for written in _written_by_a_run(output):
                if _count_unfinished_uploads(storage, written):
                    storage.discard_unfinished_uploads(written)
        except StorageError as error:
            log.warning("What is left beside %s could not be removed: %s", display(output), error)


def _written_by_a_run(output: str) -> tuple[str, ...]:
    """Return the objects that a run may have been writing when it was killed, but for those in folders of their own."""
    return output, *objects_beside(output)


def _count_unfinished_uploads(storage: Storage, uri: str) -> int:
    try:
        return len(storage.unfinished_uploads(uri))
    except AccessDenied as error:  # a permission of its own, which few jobs have
        log.debug("Whether there are unfinished uploads cannot be told: %s", error)
        return 0
