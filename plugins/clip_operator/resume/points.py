"""Resume points: what is scored so far, kept beside the output for the next try should this one die.

After every so many rows (``resume_point_rows``, a *segment*) their results are written to a small object of their own.
Nothing of one segment takes part in the scoring of another, so a try that goes on behind a resume point comes to the
same bytes as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from clip_operator.errors import Reason, RowError
from clip_operator.json_text import parse_json
from clip_operator.proof.embeddings import EmbeddingsFolder
from clip_operator.proof.manifest import Base64, EarlierWork, ObjectVersion, Share
from clip_operator.proof.signing import signed, verified
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.scoring import BYTES_A_ROW, MOST_PAIRS, PairedRows, RowResult, Rows, aggregated, are_packed, packed
from clip_operator.steps import resume_prefix
from clip_operator.storage import (
    AccessDenied,
    ObjectNotFound,
    ObjectTooLarge,
    Storage,
    StorageError,
    display,
    name_of,
    parent,
)

log = logging.getLogger(__name__)

# A row has a few hundred bytes, or a few thousand with a sentence.
_MOST_BYTES = 256 << 20
_MOST_BYTES_A_ROW = 8 << 10
_MOST_BYTES_BESIDE = 64 << 10

_MOST_CHARACTERS = 1000  # of a sentence; details have fewer

_NAME = re.compile(r"[0-9]{12}\.json")

_Row = Annotated[int, Field(ge=0, description="From 0, within the segment.")]


class _Failure(BaseModel):
    model_config = ConfigDict(frozen=True)

    row: _Row
    reason: Reason
    detail: str = Field(max_length=_MOST_CHARACTERS)


class _Sentence(BaseModel):
    model_config = ConfigDict(frozen=True)

    row: _Row
    text: str = Field(max_length=_MOST_CHARACTERS)
    score: Share


class _Several(BaseModel):
    model_config = ConfigDict(frozen=True)

    row: _Row
    scores: tuple[Share, ...] = Field(min_length=2, max_length=MOST_PAIRS)


class ResumePoint(BaseModel):
    """The results of one segment, as they stand in the store."""

    model_config = ConfigDict(frozen=True)

    first_row: int
    scores: list[Share | None] = Field(fail_fast=True)
    mismatched: Base64 = Field(description="The rows' mismatched pairs, 45 bytes a row.")
    truncated: list[_Row] = Field(fail_fast=True, description="Rows, from 0 within the segment, whose text was cut.")
    unturned: list[_Row] = Field(
        fail_fast=True, description="Rows whose image is to be turned, as its EXIF says, and was not."
    )
    least: list[_Sentence] = Field(
        fail_fast=True, description="The least aligned sentences of texts that were cut, if asked for."
    )
    several: list[_Several] = Field(fail_fast=True, description="All scores of rows that have several, if asked for.")
    failures: list[_Failure] = Field(fail_fast=True)
    embeddings: ObjectVersion | None = Field(None, description="The part file with the rows' embeddings, if asked for.")
    run: str = Field(pattern="^[0-9a-f]{16}$", description="Of which run it is: of the one that the first try began.")
    scored_by: EarlierWork = Field(description="With how many rows, and where they were scored.")
    requested_by: Requester | None
    saved_at: AwareDatetime

    @model_validator(mode="after")
    def _is_whole(self) -> ResumePoint:
        failed = [failure.row for failure in self.failures]
        if failed != [row for row, score in enumerate(self.scores) if score is None]:
            raise ValueError("a row has neither a score nor a reason, or both")
        cut = set(self.truncated)
        if not cut <= set(range(len(self.scores))) or not {sentence.row for sentence in self.least} <= cut:
            raise ValueError("a text that was cut is of no row")
        if any(self.scores[of.row : of.row + 1] != [aggregated(of.scores, "all")] for of in self.several):
            raise ValueError("several scores are of no row, or of one that has another score")
        if not set(self.unturned) <= set(range(len(self.scores))):
            raise ValueError("an image that was not turned is of no row")
        if self.scored_by.rows != len(self.scores):
            raise ValueError("not all rows, or more, were scored there")
        if len(self.mismatched) != len(self.scores) * BYTES_A_ROW or not are_packed(self.mismatched):
            raise ValueError("the mismatched pairs are not those of the rows")
        return self

    def results(self) -> list[RowResult | None]:
        """Return the segment's results; None for a row that failed for a reason that another try may not meet."""
        truncated, unturned = set(self.truncated), set(self.unturned)
        least = {sentence.row: (sentence.text, sentence.score) for sentence in self.least}
        several = {of_row.row: of_row.scores for of_row in self.several}
        pairs = (self.mismatched[at : at + BYTES_A_ROW] for at in range(0, len(self.mismatched), BYTES_A_ROW))
        results: list[RowResult | None] = [
            None
            if score is None
            else RowResult(
                score,
                row in truncated,
                mismatched=own,
                least=least.get(row),
                scores=several.get(row),
                unturned=row in unturned,
            )
            for row, (score, own) in enumerate(zip(self.scores, pairs, strict=True))
        ]
        for failure in self.failures:
            if not failure.reason.retryable:
                results[failure.row] = RowResult(None, error=RowError(failure.reason, failure.detail))
        return results


def _read_resume_point(storage: Storage, uri: str, first_row: int, most_rows: int) -> ResumePoint | None:
    """Return the resume point of the segment that starts at a row, or None if there is none that can be one.

    :param most_rows: of a segment.
    """
    try:
        most_bytes = min(_MOST_BYTES, _MOST_BYTES_BESIDE + most_rows * _MOST_BYTES_A_ROW)
        data = verified(storage.read(uri, most_bytes), "resume point", uri)
        point = None if data is None else ResumePoint.model_validate(parse_json(data, len(data)))
        if point is not None and point.first_row == first_row and len(point.scores) <= most_rows:
            return point
    except ObjectNotFound:  # another try has just finished the work and cleaned up
        return None
    except (ObjectTooLarge, ValueError):  # a model's own errors are ValueErrors
        pass
    log.warning("The resume point %s is damaged or not ours: its rows are scored again", display(uri))
    return None


class ResumePoints:
    """The resume points of one piece of work. Another input, request, model or precision never meets them.

    :param source: the version of the input.
    :param digest: the model's.
    :param scored_by: where this try scores; its ``rows`` are those of no segment.
    :param precision: what the model computes in.
    :param embeddings: what stands in the folder for embeddings, if they are asked for. A segment whose part file is not
        there any more is scored again.
    """

    def __init__(
        self,
        storage: Storage,
        request: EvaluationRequest,
        source: ObjectVersion,
        digest: str,
        precision: str,
        scored_by: EarlierWork,
        embeddings: EmbeddingsFolder | None = None,
    ) -> None:
        self._storage = storage
        self._embeddings = embeddings
        asker = None if request.requested_by is None else request.requested_by.model_dump()
        # Without a version nobody could tell that the next try reads the same rows.
        self._is_of_use = bool(source.etag) and (asker is not None or not request.overwrite)
        self._requested_by = request.requested_by
        self._segment_rows = request.resume_point_rows
        self._scored_by = scored_by
        # Whoever says overwrite wants scores that this, or his own earlier try, has made, and not what stands around:
        # images may have been replaced since. Whose that is, is not known where no task instance asks.
        decisive = [
            request.fingerprint(),
            source.model_dump(),
            digest,
            precision,
            request.resume_point_rows,
            [asker, request.rescore] if request.overwrite else None,
        ]
        work = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]
        self._prefix = f"{resume_prefix(request.output)}{work}/"
        self._saved: set[str] = set()
        try:
            if self._is_of_use:
                self._saved |= set(filter(_NAME.fullmatch, (name_of(info.uri) for info in storage.list(self._prefix))))
        except AccessDenied as error:
            log.warning("What an earlier try may have left cannot be looked for, so all rows are scored: %s", error)
        self._read_last: tuple[str, ResumePoint | None] | None = None
        self.run = self._run_of(request)
        """What tells this run from others, 16 hexadecimal digits. Tries of one task, and shards of one step, are one
        run."""
        self._first_row = 0  # of the segment that is being scored
        self._results: list[RowResult] = []
        self._mismatched: list[bytes] = []
        self._anything_new = False
        self.saved_rows = 0
        """How many rows' results this try has saved."""

    @property
    def segments_left(self) -> int:
        """How many segments' results earlier tries have left."""
        return len(self._saved)

    def _run_of(self, request: EvaluationRequest) -> str:
        asker, shard = request.requested_by, request.shard
        if asker is not None or shard is not None:
            who = [parent(request.output)] if asker is None else [asker.dag_id, asker.run_id, asker.task_id]
            return hashlib.sha256(json.dumps(who).encode()).hexdigest()[:16]
        # An earlier try of a run that nobody has named is known by what it has left.
        earlier = self._read(min(self._saved)) if self._saved else None
        return secrets.token_hex(8) if earlier is None else earlier.run

    def find(self, first_row: int) -> ResumePoint | None:
        """Return the resume point of the segment that starts at this row, if there is one that can be used."""
        if _name(first_row) not in self._saved:
            return None
        point = self._read(_name(first_row))
        if point is None or self._embeddings is None:
            return point
        part, own = point.embeddings, self._embeddings.part(first_row)
        return point if part is not None and part.uri == own and self._embeddings.holds(part) else None

    def _read(self, name: str) -> ResumePoint | None:
        if self._read_last is None or self._read_last[0] != name:
            first_row = int(name.partition(".")[0])
            point = _read_resume_point(self._storage, self._prefix + name, first_row, self._segment_rows)
            self._read_last = name, point
        return self._read_last[1]

    def add(
        self, rows: Rows[Any], results: Sequence[RowResult], paired: PairedRows, embeddings: ObjectVersion | None
    ) -> None:
        """Take in the results of the next rows; save those of a segment when it is complete.

        :param paired: the mismatched pairs that have come to be known: at the end of a segment, those of all its rows.
        :param embeddings: at the end of a segment the part file with its rows' embeddings, if they are asked for.
        """
        self._results += results
        self._mismatched += packed(paired.codes)
        self._anything_new |= rows.known is None or None in rows.known
        if rows.ends_segment:
            self._end_segment(embeddings)

    def add_last(self, paired: PairedRows, embeddings: ObjectVersion | None) -> None:
        """Save what came behind the last whole segment: there are no more rows."""
        self._mismatched += packed(paired.codes)
        self._end_segment(embeddings)

    def _end_segment(self, embeddings: ObjectVersion | None) -> None:
        """Save what was added since the last segment ended, unless nothing of it is new, no row has a score, or none
        could take it up."""
        if self._is_of_use and self._anything_new and any(result.score is not None for result in self._results):
            self._save(self._first_row, self._results, embeddings)
        self._first_row += len(self._results)
        self._results = []
        self._mismatched = []
        self._anything_new = False

    def discard(self) -> None:
        """Remove what this piece of work has left. Where that fails, say so and go on."""
        try:
            self._storage.delete_folder(self._prefix)
        except StorageError as error:
            log.warning("The resume points at %s could not be removed: %s", display(self._prefix), error)

    def _save(self, first_row: int, results: Sequence[RowResult], embeddings: ObjectVersion | None) -> None:
        point = ResumePoint(
            first_row=first_row,
            scores=[result.score for result in results],
            mismatched=b"".join(self._mismatched),
            truncated=[row for row, result in enumerate(results) if result.truncated],
            unturned=[row for row, result in enumerate(results) if result.unturned],
            least=[
                _Sentence(row=row, text=result.least[0], score=result.least[1])
                for row, result in enumerate(results)
                if result.least is not None
            ],
            several=[
                _Several(row=row, scores=result.scores)
                for row, result in enumerate(results)
                if result.scores is not None
            ],
            failures=[
                _Failure(row=row, reason=result.error.reason, detail=result.error.detail[:_MOST_CHARACTERS])
                for row, result in enumerate(results)
                if result.error is not None
            ],
            embeddings=embeddings,
            run=self.run,
            scored_by=self._scored_by.model_copy(update={"rows": len(results)}),
            requested_by=self._requested_by,
            saved_at=datetime.now(UTC),
        )
        uri = self._prefix + _name(first_row)
        self._storage.write(signed(point.model_dump_json().encode(), "resume point", uri), uri)
        self.saved_rows += len(results)


def _name(first_row: int) -> str:
    return f"{first_row:012d}.json"
