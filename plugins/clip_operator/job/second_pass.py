"""What can be said of a row only when all rows are scored: a second pass over the output, before it is published."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.proof.claims import write_claim
from clip_operator.proof.gates import check_threshold, weak_threshold
from clip_operator.proof.manifest import Calibration, FilteredStep, ObjectVersion, RejectedStep
from clip_operator.proof.publication import Published, publish_output
from clip_operator.proof.standing import version
from clip_operator.request import EvaluationRequest, RowFilter
from clip_operator.scoring import CHUNK_ROWS, Keeper, NullDistribution, Tally, best_of, written_score
from clip_operator.storage import Storage, Unchanged, display
from clip_operator.tables import AddedType, Chunk, create_selection, create_table, file_type_of, open_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Selection:
    """A local file with some of the output's rows."""

    path: Path
    rows: int


@dataclass(frozen=True)
class _Filtered:
    """What a filter made of the output.

    :param row_filter: its limits, the threshold being a number.
    :param top_score: the lowest score among the best rows, if it is to keep these.
    :param rejected: the other rows, if they are asked for.
    """

    row_filter: RowFilter
    top_score: float | None
    kept: _Selection
    rejected: _Selection | None


@dataclass(frozen=True)
class StepFiles:
    """Local files with what is to be published."""

    output: Path
    filtered: _Filtered | None


def second_pass(output: Path, request: EvaluationRequest, tally: Tally, of_folders: Collection[str] = ()) -> StepFiles:
    """Make the local files of the output and, if they are asked for, of the rows that a filter keeps and rejects.

    :param output: the local file as it was written with the scores; it may be gone afterwards.
    :param tally: what all its rows came to.
    :param of_folders: the columns that the input has by the names of its folders.
    :raises JobError: the threshold or a percentile is asked for, and there is none, or one that means too little.
    :raises Cancelled: it was told to stop; nothing was published.
    """
    null = tally.null_distribution()
    output = _with_percentiles(output, request, of_folders, null)
    if request.row_filter is None:
        return StepFiles(output, None)
    row_filter = _known(request.row_filter, request, tally.calibration(), null)
    return StepFiles(output, _filtered(output, request, of_folders, row_filter, null))


def publish_step(storage: Storage, step: StepFiles, request: EvaluationRequest, condition: Unchanged) -> Published:
    """Write the output to its place and, if there are any, the selections of its rows to theirs.

    :raises JobError: another run has written the output meanwhile.
    """
    filtered = step.filtered
    published = version(publish_output(storage, step.output, request.output, condition))
    if filtered is None or request.filtered_output is None:
        return Published(published)
    kept = FilteredStep(
        output=_published(storage, filtered.kept, request.filtered_output, request),
        rows=filtered.kept.rows,
        top_score=filtered.top_score,
        **filtered.row_filter.limits,
    )
    log.info("%s rows have %s; wrote %s", f"{kept.rows:,}", filtered.row_filter, display(request.filtered_output))
    if filtered.rejected is None or request.rejected_output is None:
        return Published(published, kept)
    there = _published(storage, filtered.rejected, request.rejected_output, request)
    log.info("%s rows have not; wrote %s", f"{filtered.rejected.rows:,}", display(request.rejected_output))
    return Published(published, kept, RejectedStep(output=there, rows=filtered.rejected.rows))


def _published(storage: Storage, selection: _Selection, uri: str, request: EvaluationRequest) -> ObjectVersion:
    # Its proof is the manifest of the output, which is still to come: until then no reader may take it for complete.
    write_claim(storage, uri, request.requested_by)
    return version(publish_output(storage, selection.path, uri, None))


def _with_percentiles(
    output: Path, request: EvaluationRequest, of_folders: Collection[str], null: NullDistribution | None
) -> Path:
    """Return the path of the output with each row's percentile among mismatched pairs, if the request asks for it.

    Where no mismatched pair could be made, no row has a percentile.
    """
    if request.percentile_key is None:
        return output
    if null is None:
        log.warning("No row has a percentile: %s", _no_pair(request))
    target = output.with_name(f"{output.name}-with-percentiles")
    without = request.model_copy(update={"percentile_key": None})
    file_type = file_type_of(request.output, without.output_dialect(of_folders))
    with (
        open_table(output, file_type, (request.output_key,)) as table,
        create_table(target, file_type, table, {request.percentile_key: AddedType.FLOAT64}) as writer,
    ):
        for chunk in table.chunks(CHUNK_ROWS):
            percentiles = [
                None if score is None or null is None else null.percentile(score) for score in _scores(chunk, request)
            ]
            writer.write(chunk, {request.percentile_key: percentiles})
    output.unlink()  # two copies take room enough
    return target


def _known(
    row_filter: RowFilter, request: EvaluationRequest, calibration: Calibration | None, null: NullDistribution | None
) -> RowFilter:
    """Return the filter with a number for the threshold.

    :raises JobError: it takes mismatched pairs, and there are none; or the threshold means too little.
    """
    if row_filter.min_percentile is not None and null is None:
        raise JobError(
            f"{display(request.output)}: no row has the percentile that min_percentile asks for: {_no_pair(request)}. "
            "Nothing was written; leave min_percentile out"
        )
    if row_filter.min_score != "threshold":
        return row_filter
    if calibration is None:
        raise JobError(
            f"{display(request.output)}: min_score is 'threshold', and none can be suggested: {_no_pair(request)}. "
            "Nothing was written; give min_score as a number"
        )
    check_threshold(request, calibration)
    if weak := weak_threshold(calibration):
        log.warning("min_score is the suggested threshold, %.4f, which means little: %s", calibration.threshold, weak)
    if calibration.uncertain:
        log.warning(
            "min_score is the threshold of %s different images: with others of the same kind it would be another. "
            "Give min_score as a number, or more rows",
            f"{calibration.images:,}",
        )
    return replace(row_filter, min_score=calibration.threshold)


def _filtered(
    output: Path,
    request: EvaluationRequest,
    of_folders: Collection[str],
    row_filter: RowFilter,
    null: NullDistribution | None,
) -> _Filtered:
    """Write the rows that a filter keeps, and if the request asks for it those that it rejects, to files beside the
    output."""
    target, others = output.with_name(f"{output.name}-filtered"), output.with_name(f"{output.name}-rejected")
    file_type = file_type_of(request.output, request.output_dialect(of_folders))
    kept_rows = rejected_rows = 0
    with ExitStack() as files:
        table = files.enter_context(open_table(output, file_type, (request.output_key,)))
        best = None
        if row_filter.keep_top is not None:
            scores = (score for chunk in table.chunks(CHUNK_ROWS) for score in _scores(chunk, request))
            scratch = output.with_name(f"{output.name}-scores")
            best = best_of(row_filter.keep_top, (score for score in scores if score is not None), scratch)
        keeper = Keeper(row_filter, null, best)
        selection = files.enter_context(create_selection(target, table))
        rejection = None
        if request.rejected_output is not None:
            rejection = files.enter_context(create_selection(others, table))
        for chunk in table.chunks(CHUNK_ROWS):
            kept = [keeper.keeps(score) for score in _scores(chunk, request)]
            selection.write(chunk.select(kept), {})
            kept_rows += sum(kept)
            if rejection is not None:
                rejection.write(chunk.select([not is_kept for is_kept in kept]), {})
                rejected_rows += len(kept) - sum(kept)
    return _Filtered(
        row_filter,
        None if best is None else best.score,
        _Selection(target, kept_rows),
        None if rejection is None else _Selection(others, rejected_rows),
    )


def _no_pair(request: EvaluationRequest) -> str:
    if request.aggregate in ("max", "min"):
        of_one = f"one image and one text (the {request.aggregate} of several has no mismatched pairs)"
    else:
        of_one = "different images and texts"
    return f"among each {request.resume_point_rows:,} rows (resume_point_rows) no two with {of_one} have a score"


def _scores(chunk: Chunk, request: EvaluationRequest) -> Iterator[float | None]:
    return (written_score(value, request.on_error) for value in chunk.column(request.output_key))
