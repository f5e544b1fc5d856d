"""The first pass: every row is read, scored if its score is not known yet, and written with the added columns."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clip_operator import model
from clip_operator.errors import Cancelled, JobError
from clip_operator.images import ImageLoader
from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.inputs import Input, columns_of_folders, fragment_of
from clip_operator.job.embeddings import EmbeddingsWriter
from clip_operator.job.progress import show_progress
from clip_operator.job.sampling import SampleCollector
from clip_operator.machine.libraries import library_versions
from clip_operator.model import Checkpoint
from clip_operator.preflight import no_image_comes, open_checked
from clip_operator.proof.manifest import DeviceProvenance, EarlierWork, ObjectVersion, Scored
from clip_operator.proof.standing import Standing, version
from clip_operator.report.picked import PickedRows
from clip_operator.request import EvaluationRequest, Shard
from clip_operator.resume import Continuation, PreviousOutput, ResumePoints, find_leftovers
from clip_operator.reuse import ScoreReuse, ScoreStore
from clip_operator.scoring import Outcomes, PairedRows, Rows, Scorer, Tally, derived_columns
from clip_operator.storage import AccessDenied, Storage, StorageError, display
from clip_operator.tables import WHOLE, AddedType, Chunk, TableReader, TableWriter, create_table, file_type_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A request that may be carried out, and what that takes.

    :param images: says where the images are.
    :param workers: fetch and decode them.
    :param standing: what stands at the output.
    :param stop: when set, by whatever thread, the job ends soon with :class:`Cancelled`.
    """

    request: EvaluationRequest
    storage: Storage
    images: ImageLoader
    workers: ImageWorkers
    data: Input
    checkpoint: Checkpoint
    standing: Standing
    stop: threading.Event

    def check_not_stopped(self) -> None:
        """Raise :class:`Cancelled` if the job is to stop."""
        if self.stop.is_set():
            raise Cancelled("stopped before the output was written")


@dataclass(frozen=True)
class ScoredRows:
    """What the first pass came to.

    :param table: the local file with all rows and the added columns, but for those that need all rows' scores.
    :param tally: counts and statistics over them, of which ``scored`` has what the manifest says.
    :param picked: of them, what the report shows; None if there is to be none.
    :param embeddings: wrote those of all rows; None if none are asked for.
    :param continuation: what was saved of them.
    :param hints: what may be wrong with image paths that led nowhere.
    """

    table: Path
    tally: Tally
    scored: Scored
    picked: PickedRows | None
    embeddings: EmbeddingsWriter | None
    continuation: Continuation
    hints: Sequence[str]


def score_rows(job: Job, folder: Path) -> ScoredRows:
    """Score every row of the input into a local file.

    :param folder: an empty folder on the local disk, with room for the input and the output.
    :raises JobError: the input cannot be scored, or too few of its rows; nothing was written but resume points.
    """
    request, table_path = job.request, folder / "output"
    local = job.data.fetch(folder, request.shard)
    with _in_its_shard(request.shard), open_checked(local.open, request) as (table, scan):
        if request.shard is None:
            _check_images(job, table)
        job.check_not_stopped()
        job.workers.expect(scan.rows)
        first_pass = _FirstPass(job, folder)
        fragment = WHOLE if request.shard is None or request.shard.standalone else fragment_of(request.shard)
        added, output_type = _added_columns(request), file_type_of(request.output)
        with (
            first_pass.continuation(folder / "previous") as continuation,
            create_table(table_path, output_type, table, added, fragment=fragment) as writer,
        ):
            first_pass.write(table, scan.rows, continuation, writer)
        picked = first_pass.picked()
    job.check_not_stopped()
    scored, embeddings = first_pass.scored(continuation), first_pass.embeddings
    return ScoredRows(table_path, first_pass.tally, scored, picked, embeddings, continuation, first_pass.hints())


class _FirstPass:
    """Loads the model, and has what takes part in scoring."""

    def __init__(self, job: Job, folder: Path) -> None:
        request = job.request
        scores = None if request.reuse is None else ScoreStore(job.storage, request.reuse)
        self._job = job
        self._libraries = library_versions()
        log.info("Loading torch and the model %s …", job.checkpoint.name)
        self._device = model.choose_device(request.device)
        self._encoder = model.load_encoder(job.checkpoint, self._device, request.precision, request.batch_size)
        self._reuse = (
            None
            if scores is None
            else ScoreReuse(scores, self._encoder.provenance, request, job.storage, job.images, job.workers)
        )
        self._scorer = Scorer(
            self._encoder,
            job.workers if self._reuse is None else self._reuse.images,
            job.stop,
            reduced=request.image_decoding == "reduced",
            cache_bytes=request.embedding_cache_bytes,
            with_sentences=request.sentence_key is not None,
            aggregate=request.aggregate,
        )
        self._outcomes = Outcomes(request)
        self._collector = SampleCollector(request.shard) if request.report else None
        self.embeddings = (
            None
            if job.standing.embeddings is None
            else EmbeddingsWriter(
                job.storage,
                request,
                job.standing.embeddings,
                self._encoder.provenance,
                self._encoder.dimensions,
                version(job.data.info),
                folder,
            )
        )

    @property
    def tally(self) -> Tally:
        return self._outcomes.tally

    @contextmanager
    def continuation(self, path: Path) -> Iterator[Continuation]:
        """Open what earlier tries and runs have left of this work; a copy of a previous output goes to ``path``."""
        job, provenance, source = self._job, self._encoder.provenance, version(self._job.data.info)
        here = EarlierWork(rows=0, device=self._device.name, libraries=self._libraries)
        points = ResumePoints(
            job.storage,
            job.request,
            source,
            provenance.digest,
            provenance.precision,
            here,
            job.standing.embeddings,
        )
        previous = None
        if manifest := job.standing.rescorable(source, provenance.digest, provenance.precision):
            previous = PreviousOutput(job.storage, manifest, path, columns_of_folders(job.data))
            self.tally.add_mismatched(manifest.mismatched)
        try:
            yield Continuation(points, previous, job.request.resume_point_rows)
        except Exception:
            if points.saved_rows:
                log.info("The results of %s rows are kept for the next try", f"{points.saved_rows:,}")
            raise

    def write(self, table: TableReader, rows_in_all: int, continuation: Continuation, writer: TableWriter) -> None:
        """Write ``table`` with the added columns, all but those that are known only when all rows are scored."""
        request, outcomes, reuse = self._job.request, self._outcomes, self._reuse
        known = 0
        with show_progress(rows_in_all, continuation.left_before) as progress:
            chunks = continuation.rows(table, request.input_image_key, request.input_text_key)
            for rows, results in self._scorer.score(chunks if reuse is None else reuse.rows(chunks, continuation.run)):
                scores = outcomes.scores(results, rows.references)
                writer.write(rows.content, {request.output_key: scores, **derived_columns(request, results)})
                known += sum(result is not None for result in rows.known or ())
                progress.update(outcomes.tally.rows, outcomes.tally.failed, known)
                if self._collector is not None:
                    self._collector.add(rows, results)
                paired = self._take_pairs()
                self._scorer.saving()
                if reuse is not None:
                    reuse.save(rows, results, paired)
                part = self._write_embeddings(rows, continuation)
                continuation.save(rows, results, paired, part)
                if rows.ends_segment:
                    outcomes.check_so_far()
            if outcomes.tally.rows != rows_in_all:
                raise JobError(
                    f"{outcomes.tally.rows:,} rows were read but the input has {rows_in_all:,}; nothing was written"
                )
            paired = self._take_pairs()
            if reuse is not None:
                reuse.save_last(paired)
            part = None if self.embeddings is None else self.embeddings.end_segment()
            continuation.save_last(paired, part)
            outcomes.check()

    def _write_embeddings(self, rows: Rows[Chunk], continuation: Continuation) -> ObjectVersion | None:
        """Write the embeddings of the next rows, if they are asked for, before their results are saved: what is saved
        is not encoded again."""
        if self.embeddings is None:
            return None
        return self.embeddings.add(rows, self._scorer.embeddings(), continuation)

    def _take_pairs(self) -> PairedRows:
        paired = self._scorer.take_pairs()
        self.tally.add_pairs(paired)
        return paired

    def hints(self) -> list[str]:
        """Return what may be wrong with image paths that led nowhere."""
        return self._outcomes.hints()

    def picked(self) -> PickedRows | None:
        """Return rows that stand for the others; None if the request wants no report."""
        return None if self._collector is None else self._collector.picked(self._job.workers)

    def scored(self, continuation: Continuation) -> Scored:
        """Return what the manifest says of the scores and of what gave them."""
        earlier_work = continuation.earlier_work()
        return Scored(
            rows=self.tally.row_counts(
                resumed=sum(work.rows for work in earlier_work),
                reused=0 if self._reuse is None else self._reuse.reused,
                truncated_texts=continuation.truncated_texts,
                unturned_images=continuation.unturned_images,
            ),
            scores=self.tally.statistics(),
            calibration=self.tally.calibration(),
            model=self._encoder.provenance,
            device=DeviceProvenance(name=self._device.name, reason=self._device.reason),
            throughput=self._scorer.throughput(),
            libraries=self._libraries,
            earlier_work=earlier_work,
            sums=None if self._job.request.shard is None else self.tally.sums(),
            mismatched=self.tally.mismatched(),
        )


def _check_images(job: Job, table: TableReader) -> None:
    """Raise :class:`JobError` if, as far as can be told at small cost, no image of the table can be had."""
    if job.request.rescore is not None and job.standing.output is not None:
        return  # most rows have their scores, and need no image any more
    problem = no_image_comes(table, job.request, job.images, job.images.fetch, job.stop)
    if problem is None:
        return
    if _may_resume(job):
        log.warning("Rows that an earlier try has scored keep their scores, but %s", problem)
        return
    raise JobError(f"{display(job.request.input)}: {problem}. Nothing was scored or written")


def _may_resume(job: Job) -> bool:
    """Tell whether an earlier try may have scored rows, so that their images need not be there any more."""
    try:
        return any(left.resume_points for left in find_leftovers(job.storage, job.request.output))
    except AccessDenied:  # it cannot be told
        return True


def _added_columns(request: EvaluationRequest) -> dict[str, AddedType]:
    """Return the columns that are written with the rows, in the order of ``request.added_columns``."""
    types = dict.fromkeys((request.error_key, request.sentence_key), AddedType.STRING)
    if request.aggregate == "all":
        types[request.output_key] = AddedType.FLOAT64_LIST
    written = (key for key in request.added_columns if key != request.percentile_key)
    return {key: types.get(key, AddedType.FLOAT64) for key in written}


@contextmanager
def _in_its_shard(shard: Shard | None) -> Iterator[None]:
    """Say of an error which part of the whole input it speaks of: lines and elements are counted within a shard."""
    try:
        yield
    except JobError as error:
        if shard is None or shard.of == 1 or isinstance(error, (Cancelled, StorageError)):
            raise
        from_row = "" if shard.first_row is None else f", whose first row is row {shard.first_row + 1:,} of the whole"
        raise JobError(f"{error} (in shard {shard.index + 1:,} of {shard.of:,}{from_row})") from None
