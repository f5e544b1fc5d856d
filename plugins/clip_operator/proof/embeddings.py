"""The folder of a step's embeddings: whose it is, what stands there, and that all of it does.

Its part files are written while rows are scored, so that a try which dies leaves those that are done. An object in the
folder says for which output it is, from before the first part on; the manifest of that output, which comes last, proves
the parts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, ValidationError

from clip_operator.errors import JobError
from clip_operator.proof.manifest import Embeddings, EvaluationManifest, ObjectVersion
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.steps import (
    embeddings_owner_uri,
    embeddings_part,
    embeddings_prefix,
    is_embeddings_part,
    part_name,
    shard_of_part,
)
from clip_operator.storage import (
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    Storage,
    Unchanged,
    canonical,
    display,
    join,
    name_of,
)

_MOST_BYTES = 1 << 20


class _Owner(BaseModel):
    """Whose embeddings a folder holds."""

    model_config = ConfigDict(frozen=True)

    output: str
    requested_by: Requester | None


@dataclass(frozen=True)
class EmbeddingsFolder:
    """What stands in the folder that a request names, or, of a shard, its own part files there.

    :param parts: the part files, by name.
    :param other: the name of a file that is none, and that a reader of the folder would take for one.
    :param shard: whose part files they are, as :func:`part_name` calls it; None where all are.
    :param owner: for which output the parts are, if that is said there.
    :param owner_version: which version of the object says so.
    """

    uri: str
    parts: Mapping[str, ObjectInfo]
    other: str | None = None
    shard: str | None = None
    owner: _Owner | None = None
    owner_version: ObjectInfo | None = None

    @property
    def version(self) -> ObjectVersion:
        """The version of all parts together."""
        ordered = [replace(info, uri=join(self.uri, name)) for name, info in sorted(self.parts.items())]
        whole = ObjectInfo.of_many(self.uri, ordered)
        return ObjectVersion(uri=whole.uri, size=whole.size, etag=whole.etag)

    def holds(self, part: ObjectVersion) -> bool:
        """Tell whether exactly this version of a part stands there."""
        found = self.parts.get(name_of(part.uri))
        return found is not None and bool(part.etag) and (found.size, found.etag) == (part.size, part.etag)

    def part(self, first_row: int) -> str:
        """Return where the part stands, or is to stand, with the rows from this one on, as the task counts them."""
        return embeddings_part(self.uri, self.shard, first_row)

    def of_shards(self, shards: Iterable[str]) -> dict[str, EmbeddingsFolder]:
        """Return what is there of each of these shards, called as :func:`part_name` calls them."""
        parts: dict[str | None, dict[str, ObjectInfo]] = defaultdict(dict)
        for name, info in self.parts.items():
            parts[shard_of_part(name)][name] = info
        return {shard: EmbeddingsFolder(self.uri, parts[shard], shard=shard) for shard in shards}

    def is_proved_by(self, manifest: EvaluationManifest) -> bool:
        """Tell whether what is there is what a manifest says of it."""
        return manifest.embeddings is not None and manifest.embeddings.folder.is_surely(self.version)

    def check_may_write(self, request: EvaluationRequest) -> None:
        """Raise :class:`JobError` if the folder holds what is not this output's. Of shards, the plan has seen to it.

        :param request: may say that what is there may be replaced; not so another instance of the same mapped task.
        """
        where, asker = display(self.uri), request.requested_by
        if request.shard is not None:
            return
        if self.other is not None:
            raise JobError(
                f"{where} holds {self.other!r}, which is no file of embeddings, and would be read as one: let "
                "embeddings_path name a folder for nothing else"
            )
        if self.is_of(request):
            return
        by = None if self.owner is None else self.owner.requested_by
        if self.owner is not None and by is not None and asker is not None and asker.runs_beside(by):
            raise JobError(
                f"{where} is for the embeddings of instance {by.map_index} of this mapped task in this run, and "
                f"instance {asker.map_index} would replace them. Map embeddings_path, too, or have it hold "
                "{{ ti.map_index }}"
            )
        if self.parts and not request.overwrite:
            whose = "nothing says whose they are" if self.owner is None else f"those of {display(self.owner.output)}"
            raise JobError(
                f"{where} holds embeddings already that are not this output's: {whose}. Set overwrite=True to replace "
                "them, or give embeddings_path another folder"
            )

    def is_of(self, request: EvaluationRequest) -> bool:
        """Tell whether the folder is for the embeddings of the request's output."""
        return self.owner is not None and canonical(self.owner.output) == canonical(request.output)


def look_at_embeddings(storage: Storage, request: EvaluationRequest) -> EmbeddingsFolder | None:
    """Look at what stands in the folder that a request names; None if it names none."""
    if request.embeddings_path is None:
        return None
    uri, shard = request.embeddings_path, request.shard
    if shard is not None:
        name = part_name(shard.index, shard.of)
        found = storage.list(embeddings_prefix(uri, name))
        return EmbeddingsFolder(uri, {name_of(info.uri): info for info in found}, shard=name)
    parts: dict[str, ObjectInfo] = {}
    other = None
    start = join(uri, "")
    for info in storage.list(start):
        name = info.uri.removeprefix(start)
        if is_embeddings_part(name):
            parts[name] = info
        elif not name.startswith(("_", ".")):  # which readers of such folders pass over
            other = name
            break
    owner, owner_version = _read_owner(storage, uri)
    return EmbeddingsFolder(uri, parts, other, owner=owner, owner_version=owner_version)


def claim_embeddings(storage: Storage, request: EvaluationRequest, before: EmbeddingsFolder | None) -> None:
    """Say in the folder whose embeddings it is for, before the first part is written.

    :param before: what stood there when it was found free to write; None if no embeddings are asked for.
    :raises JobError: another has said so meanwhile, or no manifest could prove what is written there.
    """
    if before is None or request.shard is not None:
        return
    uri = embeddings_owner_uri(before.uri)
    owner = _Owner(output=request.output, requested_by=request.requested_by)
    try:
        written = storage.write(owner.model_dump_json().encode(), uri, Unchanged(before.owner_version))
    except ObjectChanged:  # this very moment; by another try of this task, perhaps
        now = look_at_embeddings(storage, request)
        if now is None or not now.is_of(request):
            raise JobError(
                f"another job has begun to write embeddings to {display(before.uri)}: give each a folder of its own"
            ) from None
        now.check_may_write(request)
        return
    if not written.etag:
        storage.delete(uri)
        raise JobError(
            f"the store of {display(before.uri)} tells no versions apart, so no manifest could prove what is written "
            "there; let embeddings_path name another store"
        )


def prove_embeddings(
    storage: Storage, request: EvaluationRequest, written: Mapping[str, ObjectInfo], rows: int, dimensions: int
) -> Embeddings:
    """See that all part files stand as they were written, and remove those of an earlier version of the step.

    :param written: all parts of the request's rows, by name.
    :return: what the manifest says of them.
    :raises JobError: another job has written there meanwhile.
    """
    found = look_at_embeddings(storage, request)
    assert found is not None, "the request asks for embeddings"
    lost = next((name for name, part in written.items() if not _stands(storage, found, name, part)), None)
    if lost is not None or (request.shard is None and not found.is_of(request)):
        raise JobError(
            f"another job has written or removed embeddings in {display(found.uri)} while this one was scoring"
            f"{f' ({lost})' if lost else ''}. The output was not touched; let one job at a time write there, and run "
            "the task again"
        )
    for name in found.parts.keys() - written.keys():
        storage.delete(join(found.uri, name))
    return Embeddings(
        folder=EmbeddingsFolder(found.uri, written).version,
        files=len(written),
        rows=rows,
        dimensions=dimensions,
        dtype=request.embeddings_dtype,
    )


def _stands(storage: Storage, found: EmbeddingsFolder, name: str, part: ObjectInfo) -> bool:
    uri = join(found.uri, name)
    if found.holds(ObjectVersion(uri=uri, size=part.size, etag=part.etag)):
        return True
    now = storage.find(uri)  # what a listing says may be late
    return now is not None and (now.size, now.etag) == (part.size, part.etag)


def _read_owner(storage: Storage, folder: str) -> tuple[_Owner | None, ObjectInfo | None]:
    uri = embeddings_owner_uri(folder)
    try:
        found, data = storage.read_version(uri, _MOST_BYTES)
    except ObjectNotFound:
        return None, None
    except ObjectTooLarge:
        return None, storage.find(uri)
    try:
        return _Owner.model_validate_json(data), found
    except ValidationError:
        return None, found
