"""The plan of a step that many workers score: its request, the input's version, and where the input is cut."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal, Self
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from clip_operator import model
from clip_operator.errors import Cancelled, JobError, Reason, RequestError
from clip_operator.inputs import Input, check_outputs_apart, columns_of_folders, find_input
from clip_operator.json_text import parse_json
from clip_operator.proof.claims import write_claim
from clip_operator.proof.embeddings import claim_embeddings
from clip_operator.proof.manifest import EvaluationManifest, ObjectVersion
from clip_operator.proof.signing import signed, verified
from clip_operator.proof.standing import Standing, look, version
from clip_operator.request import OF_ALL_SCORES, EvaluationRequest, Requester, Shard
from clip_operator.sharding.cut import Weight, at_multiples, into, of_size
from clip_operator.steps import is_in_parts, part_name, plan_uri
from clip_operator.storage import ObjectNotFound, Storage, StorageError, canonical, display, join, parent
from clip_operator.tables import FileType, Span, check_conversion, file_type_of

log = logging.getLogger(__name__)

DEFAULT_SHARD_ROWS = 131_072
"""Rows of a shard where nothing else is asked for: minutes of work for a GPU, beside which starting it is little."""

_MOST_PLAN_BYTES = 8 << 20  # a hundred thousand shards and the largest request

_REASONS = {reason.value for reason in Reason}

_Columns = tuple[tuple[int, ...], tuple[str, ...]]
"""What a plan says of columns: which files tell them, and which of them folders do."""

_LEFT_TO_THE_MERGE = dict.fromkeys((*OF_ALL_SCORES, "filtered_output", "rejected_output"))


class PlanNotFound(JobError):
    """There is no plan: the step was not planned yet, or a merge has removed the plan with the rest."""


class ShardPlan(BaseModel):
    """How one step is divided. Written once, read by every shard and by the merge.

    Its place names it by a digest of what it says, so that whoever was handed its URI by the task that wrote it knows
    that it still says the same. What the digest leaves out decides nothing that is in the output.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    plan_version: Literal[1] = 1
    id: str = Field(description="Digest of the request, the input's version and the cut; and of who overwrites.")
    request: EvaluationRequest = Field(description="The whole step's. Who asks is whoever planned it.")
    input: ObjectVersion
    total_rows: int | None
    standalone: bool = Field(description="Each shard writes a table of its own, and those are the output.")
    is_complete: bool = Field(False, description="The output was there already, so there is nothing to divide.")
    shards: list[Span] = Field(fail_fast=True, description="start, stop, first row, rows of each, as in request.shard.")
    columns_of: tuple[int, ...] = Field((), description="Which files tell the columns, as in request.shard.")
    of_folders: tuple[str, ...] = Field((), description="The columns that the input has by the names of its folders.")
    drawn: str | None = Field(None, description="Tells plans apart that overwrite and that no task instance asks for.")
    created_at: AwareDatetime

    @model_validator(mode="after")
    def _is_what_its_id_says(self) -> Self:
        if self.standalone != is_in_parts(self.request.output) or self.total_rows != _total_rows(self.shards):
            raise ValueError("the shards are not of this output, or their rows are not all rows")
        if not all(map(_is_span, self.shards)) or any(a.stop != b.start for a, b in pairwise(self.shards)):
            raise ValueError("the shards do not lie one behind the other")
        told = (self.columns_of, self.of_folders)
        if self.id != _id(self.request, self.input, self.standalone, self.shards, self.is_complete, told, self.drawn):
            raise ValueError("the id is that of another plan")
        return self

    @property
    def uri(self) -> str:
        """Where the plan stands."""
        return plan_uri(self.request.output, self.id)

    @property
    def folder(self) -> str:
        """The folder of what the shards leave for the merge, with a slash at its end."""
        return f"{parent(self.uri)}/"

    @property
    def names(self) -> tuple[str, ...]:
        """What the shards are called, such as ``00003-of-00007``, in the order of their rows."""
        return tuple(part_name(index, len(self.shards)) for index in range(len(self.shards)))

    def shard_request(self, name: str, requester: Requester | None) -> EvaluationRequest:
        """Return the request that scores one shard.

        :param name: one of :attr:`names`.
        :raises RequestError: there is no such shard.
        """
        return self.nth_request(self._index(name), requester)

    def nth_request(self, index: int, requester: Requester | None) -> EvaluationRequest:
        """Return the request that scores one shard, counted from 0."""
        shard = Shard(
            index=index,
            of=len(self.shards),
            input_etag=self.input.etag,
            **self.shards[index]._asdict(),
            total_rows=self.total_rows,
            columns_of=self.columns_of,
            standalone=self.standalone,
        )
        return self.request.model_copy(
            update={
                "shard": shard,
                "output": self.shard_output(index),
                "requested_by": requester,
                **_LEFT_TO_THE_MERGE,
            }
        )

    def shard_output(self, index: int) -> str:
        """Return where a shard writes its rows."""
        name = part_name(index, len(self.shards))
        output_type = file_type_of(self.request.output)
        if self.standalone:
            return join(parent(self.request.output), f"part-{name}.{output_type}")
        return f"{self.folder}{name}.{FileType(output_type.format)}"  # compression is left to the merge

    def has_made(self, index: int, manifest: EvaluationManifest) -> bool:
        """Tell whether a manifest is of this shard, counted from 0, of this plan.

        Part files stand in the same places for every run; those that another run has scored are not what an overwriting
        one asked for.
        """
        asker, scorer = self.request.requested_by, manifest.request.requested_by
        of_this_run = asker is None or (
            scorer is not None and (scorer.dag_id, scorer.run_id) == (asker.dag_id, asker.run_id)
        )
        if self.standalone and self.request.overwrite and not of_this_run:
            return False
        rows = self.shards[index].rows
        if rows not in (None, manifest.rows.total) or not manifest.rows.failures.keys() <= _REASONS:
            return False
        return manifest.proves(self.nth_request(index, None), self.input, manifest.model.digest)

    def describe(self, name: str) -> str:
        """Return which shard it is, for people: ``3 of 7, rows 129-192``."""
        index = self._index(name)
        start, stop, first_row, rows = self.shards[index]
        which = f"{index + 1:,} of {len(self.shards):,}"
        if first_row is not None and rows:
            return f"{which}, rows {first_row + 1:,}\N{EN DASH}{first_row + rows:,}"
        return f"{which}, files {start + 1:,}\N{EN DASH}{stop:,}" if first_row is None else which

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise RequestError(
                f"the plan at {display(self.uri)} has no shard {name!r}; it has {len(self.shards):,}. The step was "
                "planned anew: clear the plan task, so that the shards are mapped again"
            )
        return self.names.index(name)


def plan_shards(
    request: EvaluationRequest,
    storage: Storage,
    *,
    shards: int | None = None,
    shard_rows: int | None = None,
    shard_bytes: int | None = None,
    most: int = 1000,
) -> ShardPlan:
    """Cut the input of a step into shards, and write the plan beside the output.

    Where the output is the pattern of part files, these are the shards' own tables.

    A text file is read through once and cut where its records end, at multiples of ``request.resume_point_rows`` rows,
    so that shards and a single task score in the same segments. A Parquet file is cut between row groups, of which only
    the footer is read; inputs of many files are cut between files; both at such multiples if there are enough. The same
    work comes to the same plan; work that overwrites only if the same task instance asks for it.

    :param shards: how many there should be; there may be fewer.
    :param shard_rows: or how many rows one may have, or
    :param shard_bytes: how many bytes of the input. A single segment, row group or file may be more than
        either.
    :param most: the most shards there may be.
    :raises RequestError: it cannot be done as asked.
    :raises JobError: the input cannot be read, or the output is another's.
    """
    wanted, standalone = _Wanted(shards, shard_rows, shard_bytes, most), is_in_parts(request.output)
    if standalone and (asked := request.of_all_scores):
        raise RequestError(
            f"{' and '.join(asked)}: this needs all rows in one place when all are scored, which part files are not; "
            "leave it out, or write one file"
        )
    if request.rescore is not None and not standalone:
        raise RequestError(
            "rescore needs the whole previous output in one place, so it is for single tasks and for part files. With "
            "shards, reuse= keeps scores across runs, and tries failed rows again"
        )
    data = find_input(storage, request.input, request.dialect)
    if not data.info.etag:
        raise JobError(
            f"the store of {display(request.input)} tells no versions apart, so shards cannot be sure "
            "to be of one input; copy it to another store, or let a single task score it"
        )
    check_conversion(data.file_type, file_type_of(request.output))
    check_outputs_apart(storage, request, data)
    standing = look(storage, request)
    if _is_complete(standing, version(data.info), storage):
        log.info("%s is complete already: same input, request and model. Nothing to do.", display(request.output))
        plan = _plan(request, data, [], standalone, is_complete=True)
    else:
        standing.check_may_write()
        plan = _plan(request, data, _cut(data, request, wanted), standalone)
        claim_embeddings(storage, request, standing.embeddings)
        if standalone:  # the shards write to the final place, under names that are nobody's yet
            write_claim(storage, request.output, request.requested_by)
        log.info(
            "%s is divided into %s shards%s", display(request.input), f"{len(plan.shards):,}", _sizes(plan.total_rows)
        )
    storage.write(signed(plan.model_dump_json().encode(), "plan", plan.uri), plan.uri)
    return plan


def read_plan(uri: str, storage: Storage) -> ShardPlan:
    """Return the plan that :func:`plan_shards` has written.

    :param uri: as the plan that was written gives it: it holds the digest that what is read there must have.
    :raises PlanNotFound: it is not there.
    :raises JobError: it cannot be read, or is not the one that was written.
    """
    try:
        data = verified(storage.read(uri, _MOST_PLAN_BYTES), "plan", uri)
        plan = None if data is None else ShardPlan.model_validate(parse_json(data, len(data)))
    except ObjectNotFound:
        raise PlanNotFound(
            f"there is no plan at {display(uri)}; a merge that succeeds removes it. To score the step again, clear the "
            "plan task and all behind it"
        ) from None
    except ValueError:  # a model's own errors are ValueErrors
        raise _not_what_was_written(uri) from None
    if plan is None or canonical(plan.uri) != canonical(uri):
        raise _not_what_was_written(uri)
    return plan


def _not_what_was_written(uri: str) -> JobError:
    return JobError(
        f"the plan at {display(uri)} is not what the plan task has written there; clear the plan task to write it anew"
    )


def _is_span(span: Span) -> bool:
    return 0 <= span.start <= span.stop and min(span.first_row or 0, span.rows or 0) >= 0


def _sizes(total_rows: int | None) -> str:
    return "" if total_rows is None else f", {total_rows:,} rows in all"


@dataclass(frozen=True)
class _Wanted:
    """What is asked of the shards: no more than one of their number, their rows and their bytes; and the most of them.

    :raises RequestError: that makes no sense.
    """

    shards: int | None
    shard_rows: int | None
    shard_bytes: int | None
    most: int

    def __post_init__(self) -> None:
        names = ("shards", "shard_rows", "shard_bytes")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise RequestError(f"{' and '.join(given)} say the same thing in different units; give one of them")
        for name, value in given.items():
            if value < 1:
                raise RequestError(f"{name} must be 1 or more, not {value}")
        if self.shards is not None and self.shards > self.most:
            raise RequestError(f"shards={self.shards:,} is more than the {self.most:,} that there may be")


def _cut(data: Input, request: EvaluationRequest, wanted: _Wanted) -> list[Span]:
    spans = _finest(data, request)
    segments = at_multiples(spans, request.resume_point_rows)  # cut between them, shards score as a single task does
    total_rows = _total_rows(spans)

    byte_weight = _byte_weight(data, spans)
    row_weight = byte_weight if total_rows is None else lambda span: span.rows or 0

    if wanted.shards is not None:
        return into(segments if len(segments) >= wanted.shards else spans, wanted.shards, row_weight)
    if wanted.shard_bytes is not None:
        found = _of_size(segments, spans, wanted.shard_bytes, byte_weight)
    elif total_rows is not None:
        found = _of_size(segments, spans, wanted.shard_rows or DEFAULT_SHARD_ROWS, row_weight)
    elif wanted.shard_rows is not None:
        raise RequestError(
            f"shard_rows: how many rows the files of {display(request.input)} have is not known before they are read; "
            "say shard_bytes or shards"
        )
    else:
        found = list(spans)
    if len(found) <= wanted.most:
        return found
    if wanted.shard_rows is not None or wanted.shard_bytes is not None:
        raise RequestError(f"that would be {len(found):,} shards, more than the {wanted.most:,} that there may be")
    log.info("Larger shards than usual are made, because there may be no more than %s", f"{wanted.most:,}")
    return into(spans, wanted.most, row_weight)


def _finest(data: Input, request: EvaluationRequest) -> Sequence[Span]:
    try:
        return data.cut(request.resume_point_rows)
    except (Cancelled, StorageError):
        raise
    except JobError as error:
        if (name := display(request.input)) in str(error):
            raise
        raise JobError(f"{name}: {error}") from error


def _of_size(segments: Sequence[Span], spans: Sequence[Span], most: int, weight: Weight) -> list[Span]:
    return of_size(segments if all(weight(span) <= most for span in segments) else spans, most, weight)


def _byte_weight(data: Input, spans: Sequence[Span]) -> Weight:
    """Return what tells how many bytes of the input a span has, as nearly as that is known."""
    total_rows = _total_rows(spans)

    def weight(span: Span) -> float:
        if len(data.files) > 1:
            return sum(info.size for info in data.files[span.start : span.stop])
        if total_rows and span.rows is not None:
            return data.info.size * span.rows / total_rows
        return data.info.size / max(1, len(spans))

    return weight


def _total_rows(spans: Sequence[Span]) -> int | None:
    rows = [span.rows for span in spans if span.rows is not None]
    return sum(rows) if len(rows) == len(spans) else None


def _plan(
    request: EvaluationRequest,
    data: Input,
    spans: list[Span],
    standalone: bool,
    *,
    is_complete: bool = False,
) -> ShardPlan:
    source, drawn = version(data.info), uuid4().hex
    told: _Columns = ((), ()) if is_complete else (data.columns_of, columns_of_folders(data))
    return ShardPlan(
        id=_id(request, source, standalone, spans, is_complete, told, drawn),
        request=request,
        input=source,
        total_rows=_total_rows(spans),
        standalone=standalone,
        is_complete=is_complete,
        shards=spans,
        columns_of=told[0],
        of_folders=told[1],
        drawn=drawn,
        created_at=datetime.now(UTC),
    )


def id_where_complete(request: EvaluationRequest, source: ObjectVersion) -> str:
    """Return the id of every plan of this work that has found its output complete."""
    return _id(request, source, is_in_parts(request.output), [], is_complete=True)


def _id(
    request: EvaluationRequest,
    source: ObjectVersion,
    standalone: bool,
    spans: Sequence[Span],
    is_complete: bool,
    columns: _Columns = ((), ()),
    drawn: str | None = None,
) -> str:
    # Whoever says overwrite wants scores that he has asked for, and not those of shards that stand around.
    asker: object = None
    if request.overwrite:
        asker = drawn if request.requested_by is None else request.requested_by.model_dump()
    conduct = None if is_complete else [asker, request.rescore, request.resume_point_rows]
    decisive = [request.fingerprint(), source.model_dump(), standalone, spans, *columns, conduct]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:32]


def _is_complete(standing: Standing, source: ObjectVersion, storage: Storage) -> bool:
    """Tell whether the output is there and proved, as far as this machine can tell which model the request names."""
    if standing.proof is None or standing.finished(source, standing.proof.model.digest) is None:
        return False  # whatever the model is
    request = standing.request
    try:
        checkpoint = model.find_checkpoint(request.model, request.revision, storage)
    except (JobError, ModuleNotFoundError) as error:
        log.info("Whether the model is still the same cannot be told here, so the step is scored anew: %s", error)
        return False
    return standing.finished(source, checkpoint.digest) is not None
