"""The merge: sees that every shard has done its part of the plan, and makes one output and one manifest of them."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from typing import BinaryIO

from clip_operator.errors import Cancelled, JobError
from clip_operator.job.confirmation import confirmed
from clip_operator.job.second_pass import publish_step, second_pass
from clip_operator.machine.scratch import scratch_folder
from clip_operator.machine.stopping import stopped_by
from clip_operator.proof.embeddings import look_at_embeddings, prove_embeddings
from clip_operator.proof.manifest import (
    EarlierWork,
    Embeddings,
    EvaluationManifest,
    Scored,
    Shards,
    Throughput,
    describe_calibration,
    read_manifest,
)
from clip_operator.proof.publication import (
    Published,
    build_manifest,
    claimed,
    publish_manifest,
    remove_outdated,
)
from clip_operator.proof.standing import find_manifest, find_output, look, proof, version
from clip_operator.report import publish_report
from clip_operator.report.picked import PickedRows, merged, read_picked
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.resume import discard_leftovers
from clip_operator.scoring import Outcomes, Tally
from clip_operator.sharding.plan import PlanNotFound, ShardPlan, id_where_complete, read_plan
from clip_operator.steps import manifest_uri, objects_beside, part_files, planned_manifest
from clip_operator.storage import (
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    Storage,
    StorageError,
    Unchanged,
    canonical,
    display,
    parent,
)
from clip_operator.tables import TableFormat, file_type_of, join_arrays, join_parquet, packed

log = logging.getLogger(__name__)

_THREADS = 16
_SHOWN_SHARDS = 5
_COPIED_BYTES = 4 << 20

OwnRequest = Callable[[EvaluationRequest], EvaluationRequest]
"""Returns, of a request that stands in a store, the same one as the caller's own parameters make it.

:raises RequestError: they make another one.
"""


def merge_shards(
    plan_uri: str,
    storage: Storage,
    requester: Requester | None,
    stop: threading.Event | None = None,
    own: OwnRequest = lambda request: request,
) -> EvaluationManifest:
    """Make the step's output of what its shards have written, prove it, and remove what they left.

    Text is put together byte for byte as one task would have written it, by the store itself where it can; of Parquet
    the row groups are written one after another. With part files nothing is copied. Merging again changes nothing.

    :param plan_uri: of the plan that :func:`plan_shards` has written.
    :param requester: the task instance that asks for the merge.
    :param stop: set it, from any thread, to end the merge soon with :class:`Cancelled`.
    :param own: what is written where is for the caller to say, and not for what is read in the store. Left out, the
        plan's URI must come from whoever wrote the plan: it holds a digest of what that says.
    :return: the whole output's manifest, its counts and statistics those of all rows.
    :raises JobError: a shard has not done its part, too many rows have no score, or the store fails; the output was
        not touched.
    """
    stop = stop or threading.Event()
    try:
        plan = read_plan(plan_uri, storage)
    except PlanNotFound:
        done = _done_before(plan_uri, storage)
        if done is None:
            raise
        request = own(done.request)
        log.info("%s has been merged already", display(done.output.uri))
        # What is found in a store leads to the removal of nothing elsewhere.
        beside = canonical(parent(done.output.uri))
        outputs = [uri for uri in done.request.outputs if canonical(parent(uri)) == beside]
        return _confirmed(done, request, plan_uri, outputs, storage, requester)
    plan = plan.model_copy(update={"request": own(plan.request)})
    if plan.is_complete:
        done = _found_complete(plan, storage)
        return _confirmed(done, plan.request, plan_uri, plan.request.outputs, storage, requester)
    started = datetime.now(UTC)
    outcomes = Outcomes(plan.request)
    with stopped_by(stop):
        manifests = _manifests(plan, storage, stop, outcomes.tally)
    _check_model(manifests, plan)
    outcomes.check()
    standing = look(storage, plan.request)
    if not plan.standalone:  # part files are the shards', each of which has seen to that
        standing.check_may_write()
    with claimed(storage, standing) as condition:
        with stopped_by(stop):
            embeddings = _embeddings(plan, manifests, storage)
            published = _assembled(plan, manifests, outcomes.tally, storage, condition)
        if stop.is_set():
            raise Cancelled("stopped before the output was proved")
        scored, published = _scored(plan, manifests, outcomes.tally), replace(published, embeddings=embeddings)
        begun = min(manifest.started_at for manifest in manifests)
        manifest = build_manifest(plan.request, plan.input, published, scored, begun, confirmed_by=requester)
        if plan.request.report:
            publish_report(storage, manifest, _picked(plan, manifests, storage))
        remove_outdated(storage, standing, manifest)
        publish_manifest(storage, manifest)
    _clean_up(storage, plan_uri, plan.request.outputs)
    log.info(
        "Merged %s shards with %s rows in %.1f s; %s of them have a score; wrote %s",
        f"{len(manifests):,}",
        f"{manifest.rows.total:,}",
        (datetime.now(UTC) - started).total_seconds(),
        f"{manifest.rows.scored:,}",
        display(manifest.output.uri),
    )
    if manifest.calibration is not None:
        log.info("%s", describe_calibration(manifest.calibration))
    return manifest


def _done_before(plan_uri: str, storage: Storage) -> EvaluationManifest | None:
    """Return the manifest of the output that an earlier merge has made, or confirmed, by this plan, or None."""
    planned = planned_manifest(plan_uri)
    if planned is None:
        raise JobError(f"{display(plan_uri)} is not where a plan stands")
    uri, plan_id = planned
    try:
        manifest = read_manifest(storage, uri)
    except ObjectNotFound:
        return None
    if manifest is None or canonical(manifest_uri(manifest.output.uri)) != canonical(uri):
        return None
    if proof(storage, manifest.output.uri) != manifest:
        return None
    made_by = None if manifest.shards is None else manifest.shards.plan
    return manifest if plan_id in (made_by, id_where_complete(manifest.request, manifest.input)) else None


def _found_complete(plan: ShardPlan, storage: Storage) -> EvaluationManifest:
    """Return the manifest of the output that the plan found complete."""
    manifest = proof(storage, plan.request.output)
    if manifest is None or not manifest.proves(plan.request, plan.input, manifest.model.digest):
        raise JobError(f"{display(plan.request.output)} has changed since the step was planned; clear the plan task")
    return manifest


def _confirmed(
    done: EvaluationManifest,
    request: EvaluationRequest,
    plan_uri: str,
    outputs: Sequence[str],
    storage: Storage,
    requester: Requester | None,
) -> EvaluationManifest:
    manifest = confirmed(storage, done, request, requester)
    _clean_up(storage, plan_uri, outputs)
    return manifest


def _clean_up(storage: Storage, plan_uri: str, outputs: Sequence[str]) -> None:
    """Remove what is left of the shards of an output that is proved, and beside the selections of its rows.

    The plan goes first: with it, the next try of a merge that is killed here would ask for shards that are gone.
    """
    with suppress(StorageError):  # it is one of the leftovers, of which the same is said
        storage.delete(plan_uri)
    discard_leftovers(storage, *outputs)


def _manifests(plan: ShardPlan, storage: Storage, stop: threading.Event, tally: Tally) -> list[EvaluationManifest]:
    """Return every shard's manifest, in order, having seen that it proves the shard's own part of the plan.

    :param tally: counts what they say of rows and scores. Their sums are not kept beside it: they are large.
    :raises JobError: names shards that have not done their part.
    """
    folder = f"{parent(plan.request.output)}/" if plan.standalone else plan.folder
    there = {info.uri: info for info in storage.list(folder)}
    found_embeddings = look_at_embeddings(storage, plan.request)
    embeddings = {} if found_embeddings is None else found_embeddings.of_shards(plan.names)

    def read(index: int) -> EvaluationManifest | None:
        if stop.is_set():
            raise Cancelled("stopped before the shards were merged")
        output = plan.shard_output(index)
        manifest = find_manifest(storage, output)
        if manifest is None or manifest.sums is None or not plan.has_made(index, manifest):
            return None
        if embeddings and not embeddings[plan.names[index]].is_proved_by(manifest):
            return None
        found = there.get(output)
        if found is None or not manifest.output.is_surely(version(found)):
            found = storage.find(output)  # what a listing says may be late
        return manifest if found is not None and manifest.output.is_surely(version(found)) else None

    manifests, missing = [], []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="clip-merge") as threads:
        for name, manifest in zip(plan.names, threads.map(read, range(len(plan.shards))), strict=True):
            if manifest is None or manifest.sums is None:
                missing.append(name)
                continue
            tally.add_counted(manifest.rows, manifest.scores, manifest.sums, manifest.mismatched)
            manifests.append(manifest.model_copy(update={"sums": None, "calibration": None, "mismatched": None}))
    if missing:
        shown = ", ".join(missing[:_SHOWN_SHARDS]) + (" …" if len(missing) > _SHOWN_SHARDS else "")
        raise JobError(
            f"{len(missing):,} of {len(plan.shards):,} shards have no result that belongs to this plan: {shown}. "
            "Nothing was merged; clear their task instances, and those of the others stay as they are"
        )
    return manifests


def _check_model(manifests: Sequence[EvaluationManifest], plan: ShardPlan) -> None:
    """Raise :class:`JobError` unless one model scored all shards, in one precision."""
    models = [(manifest.model.digest, manifest.model.precision) for manifest in manifests]
    if len(set(models)) == 1:
        return
    usual = Counter(models).most_common(1)[0][0]
    others = [name for name, used in zip(plan.names, models, strict=True) if used != usual]
    raise JobError(
        f"not all shards were scored by the same model in the same precision: {', '.join(others[:_SHOWN_SHARDS])} "
        f"differ from the other {len(models) - len(others):,}. Name a revision of the model and a precision other than "
        "auto, and clear the task instances of the shards"
    )


def _assembled(
    plan: ShardPlan, manifests: Sequence[EvaluationManifest], tally: Tally, storage: Storage, condition: Unchanged
) -> Published:
    """Write the step, and the selections of its rows; without copying what can stay where it is."""
    if plan.standalone:
        return Published(version(_parts(plan, manifests, storage)))
    if not plan.request.of_all_scores:
        return Published(version(_joined(plan, manifests, storage, plan.request.output, condition)))
    with scratch_folder() as folder:
        _joined(plan, manifests, storage, str(folder / "output"), None)
        step = second_pass(folder / "output", plan.request, tally, plan.of_folders)
        return publish_step(storage, step, plan.request, condition)


def _joined(
    plan: ShardPlan,
    manifests: Sequence[EvaluationManifest],
    storage: Storage,
    target_uri: str,
    condition: Unchanged | None,
) -> ObjectInfo:
    """Write the shards' outputs as one."""
    output_type = file_type_of(plan.request.output)
    sources = [ObjectInfo(m.output.uri, m.output.size, m.output.etag) for m in manifests]
    try:
        # A fragment without rows cannot tell whether an array is to be opened or closed with it.
        has_gaps = len(manifests) > 1 and any(manifest.rows.total == 0 for manifest in manifests)
        is_array_with_gaps = has_gaps and output_type.format is TableFormat.JSON
        is_parquet = output_type.format is TableFormat.PARQUET
        if not (is_parquet or output_type.compression or is_array_with_gaps):
            return storage.concatenate(sources, target_uri, condition)
        with storage.create(target_uri, condition) as target:
            if is_parquet:
                join_parquet([partial(storage.open, source) for source in sources], target)
            else:
                with packed(target, output_type.compression) as text:
                    if is_array_with_gaps:
                        join_arrays(_opened(sources, storage), text)
                    else:
                        for stream in _opened(sources, storage):
                            shutil.copyfileobj(stream, text, _COPIED_BYTES)
    except ObjectChanged:
        raise JobError(
            f"{display(plan.request.output)}, or a shard, has been written by another run while the shards were being "
            "merged. What it wrote stands; the next try of the merge tells whether that was the same"
        ) from None
    return target.info


def _opened(sources: Sequence[ObjectInfo], storage: Storage) -> Iterator[BinaryIO]:
    """Yield a file to read for each object, open until the next one is asked for."""
    for source in sources:
        with storage.open(source) as stream:
            yield stream


def _parts(plan: ShardPlan, manifests: Sequence[EvaluationManifest], storage: Storage) -> ObjectInfo:
    """Return the version of the part files, having removed those of an earlier plan."""
    own = {manifest.output.uri for manifest in manifests}
    for info in part_files(storage, plan.request.output):
        if info.uri not in own:
            log.info("%s is of an earlier version of this step, and is removed", display(info.uri))
            for uri in (info.uri, *objects_beside(info.uri)):
                storage.delete(uri)
    output = find_output(storage, plan.request.output)
    if output is None:
        raise JobError(f"the part files at {display(plan.request.output)} have been removed")
    return output


def _embeddings(plan: ShardPlan, manifests: Sequence[EvaluationManifest], storage: Storage) -> Embeddings | None:
    """Return what the manifest says of the part files that the shards have written, if embeddings are asked for."""
    found, parts = look_at_embeddings(storage, plan.request), manifests[0].embeddings
    if found is None or parts is None:
        return None
    of_shards = found.of_shards(plan.names).values()
    written = {name: info for of_shard in of_shards for name, info in of_shard.parts.items()}
    rows = sum(manifest.rows.total for manifest in manifests)
    return prove_embeddings(storage, plan.request, written, rows, parts.dimensions)


def _picked(plan: ShardPlan, manifests: Sequence[EvaluationManifest], storage: Storage) -> PickedRows:
    """Return what is picked of the whole output's rows. A shard that has left nothing stays without."""
    outputs = [plan.shard_output(index) for index in range(len(plan.shards))]
    before = accumulate((manifest.rows.total for manifest in manifests), initial=0)
    # Where it was not known with which row a shard begins, its rows are counted from its own first.
    to_add = [rows if shard.first_row is None else 0 for shard, rows in zip(plan.shards, before, strict=False)]

    def parts() -> Iterator[tuple[PickedRows, int]]:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="clip-merge") as threads:
            for start in range(0, len(outputs), _THREADS):  # what many shards have listed is much
                some = slice(start, start + _THREADS)
                yield from zip(threads.map(partial(read_picked, storage), outputs[some]), to_add[some], strict=True)

    return merged(parts())


def _scored(plan: ShardPlan, manifests: Sequence[EvaluationManifest], tally: Tally) -> Scored:
    """Return what the shards' manifests say together."""
    first, devices = manifests[0], Counter(manifest.device for manifest in manifests)
    return Scored(
        rows=tally.row_counts(
            resumed=sum(manifest.rows.resumed for manifest in manifests),
            reused=sum(manifest.rows.reused for manifest in manifests),
        ),
        scores=tally.statistics(),
        calibration=tally.calibration(),
        mismatched=tally.mismatched(),
        model=first.model,
        device=devices.most_common(1)[0][0],
        throughput=_throughput(manifests),
        libraries=first.libraries,
        earlier_work=_added_up(work for manifest in manifests for work in manifest.earlier_work),
        shards=Shards(plan=plan.id, count=len(manifests), scored_by=_added_up(map(_work, manifests))),
    )


def _work(manifest: EvaluationManifest) -> EarlierWork:
    return EarlierWork(rows=manifest.rows.total, device=manifest.device.name, libraries=manifest.libraries)


def _added_up(works: Iterator[EarlierWork]) -> list[EarlierWork]:
    """Return each kind of work once, with the rows of all."""
    rows: Counter[str] = Counter()
    for work in works:
        rows[work.model_copy(update={"rows": 0}).model_dump_json()] += work.rows
    return [EarlierWork.model_validate_json(kind).model_copy(update={"rows": count}) for kind, count in rows.items()]


def _throughput(manifests: Sequence[EvaluationManifest]) -> Throughput | None:
    """Return the shards' throughput as if one worker had scored them one after another."""
    parts = [manifest.throughput for manifest in manifests if manifest.throughput is not None]
    seconds = sum(part.seconds for part in parts)
    if not seconds:
        return None
    names = parts[0].time_shares
    return Throughput(
        seconds=round(seconds, 3),
        rows_per_second=round(sum(part.rows_per_second * part.seconds for part in parts) / seconds, 2),
        time_shares={
            name: round(sum(part.time_shares.get(name, 0.0) * part.seconds for part in parts) / seconds, 4)
            for name in names
        },
        images_encoded=sum(part.images_encoded for part in parts),
        images_reused=sum(part.images_reused for part in parts),
        texts_encoded=sum(part.texts_encoded for part in parts),
        texts_reused=sum(part.texts_reused for part in parts),
        batch_size=max(part.batch_size for part in parts),
    )
