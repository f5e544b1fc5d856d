"""What can be said of a row only when all rows are scored: a second pass over the output, before it is published."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.proof.claims import write_claim
from clip_operator.proof.gates import check_threshold, weak_threshold
from clip_operator.proof.manifest import Calibration, FilteredStep
from clip_operator.proof.publication import Published, publish_output
from clip_operator.proof.standing import version
from clip_operator.request import EvaluationRequest
from clip_operator.scoring import CHUNK_ROWS, NullDistribution, Tally, written_score
from clip_operator.storage import Storage, Unchanged, display
from clip_operator.tables import AddedType, Chunk, create_selection, create_table, file_type_of, open_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _FilteredRows:
    """A local file with the rows that were kept."""

    path: Path
    rows: int
    min_score: float


def is_wanted(request: EvaluationRequest) -> bool:
    """Tell whether the request asks for anything that needs a second pass."""
    return request.percentile_key is not None or request.min_score is not None


@dataclass(frozen=True)
class StepFiles:
    """Local files with what is to be published."""

    output: Path
    filtered: _FilteredRows | None


def second_pass(output: Path, request: EvaluationRequest, tally: Tally, of_folders: Collection[str] = ()) -> StepFiles:
    """Make the local files of the output and, if the request asks for it, of the rows with a high score.

    :param output: the local file as it was written with the scores; it may be gone afterwards.
    :param tally: what all its rows came to.
    :param of_folders: the columns that the input has by the names of its folders.
    :raises JobError: the threshold is asked for, and there is none, or one that means too little.
    :raises Cancelled: it was told to stop; nothing was published.
    """
    output = _with_percentiles(output, request, of_folders, tally.null_distribution())
    return StepFiles(output, _filtered(output, request, of_folders, tally.calibration()))


def publish_step(storage: Storage, step: StepFiles, request: EvaluationRequest, condition: Unchanged) -> Published:
    """Write the output to its place and, if there are any, the rows with a high score to theirs.

    :raises JobError: another run has written the output meanwhile.
    """
    filtered = step.filtered
    published = version(publish_output(storage, step.output, request.output, condition))
    if filtered is None or request.filtered_output is None:
        return Published(published)
    # Its proof is the manifest of the output, which is still to come: until then no reader may take it for complete.
    write_claim(storage, request.filtered_output, request.requested_by)
    there = publish_output(storage, filtered.path, request.filtered_output, None)
    log.info(
        "%s rows have a score of %.4f or more; wrote %s",
        f"{filtered.rows:,}",
        filtered.min_score,
        display(request.filtered_output),
    )
    return Published(published, FilteredStep(output=version(there), min_score=filtered.min_score, rows=filtered.rows))


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


def _filtered(
    output: Path, request: EvaluationRequest, of_folders: Collection[str], calibration: Calibration | None
) -> _FilteredRows | None:
    """Write the rows with at least ``request.min_score`` to a file beside the output, if the request asks for it."""
    if request.min_score is None:
        return None
    if request.min_score != "threshold":
        least = request.min_score
    elif calibration is not None:
        check_threshold(request, calibration)
        least = calibration.threshold
        if weak := weak_threshold(calibration):
            log.warning("min_score is the suggested threshold, %.4f, which means little: %s", least, weak)
        if calibration.uncertain:
            log.warning(
                "min_score is the threshold of %s different images: with others of the same kind it would be another. "
                "Give min_score as a number, or more rows",
                f"{calibration.images:,}",
            )
    else:
        raise JobError(
            f"{display(request.output)}: min_score is 'threshold', and none can be suggested: {_no_pair(request)}. "
            "Nothing was written; give min_score as a number"
        )
    target = output.with_name(f"{output.name}-filtered")
    file_type = file_type_of(request.output, request.output_dialect(of_folders))
    rows = 0
    with (
        open_table(output, file_type, (request.output_key,)) as table,
        create_selection(target, table) as selection,
    ):
        for chunk in table.chunks(CHUNK_ROWS):
            kept = [score is not None and score >= least for score in _scores(chunk, request)]
            selection.write(chunk.select(kept), {})
            rows += sum(kept)
    return _FilteredRows(target, rows, least)


def _no_pair(request: EvaluationRequest) -> str:
    if request.aggregate in ("max", "min"):
        of_one = f"one image and one text (the {request.aggregate} of several has no mismatched pairs)"
    else:
        of_one = "different images and texts"
    return f"among each {request.resume_point_rows:,} rows (resume_point_rows) no two with {of_one} have a score"


def _scores(chunk: Chunk, request: EvaluationRequest) -> Iterator[float | None]:
    return (written_score(value, request.on_error) for value in chunk.column(request.output_key))
