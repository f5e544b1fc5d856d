"""The job: read a step, score every row, write the next step, prove it."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clip_operator import model
from clip_operator.errors import Cancelled, JobError
from clip_operator.images import ImageLoader
from clip_operator.inputs import find_input
from clip_operator.inputs.image_access import image_loader, image_root
from clip_operator.job.progress import show_progress
from clip_operator.job.sampling import SampleCollector
from clip_operator.job.second_pass import publish_step
from clip_operator.machine.scratch import scratch_folder
from clip_operator.preflight import no_image_comes, open_checked
from clip_operator.proof.completion import (
    check_may_write,
    claimed,
    confirm,
    finished,
    publish_manifest,
    rescorable,
    version,
)
from clip_operator.proof.manifest import DeviceProvenance, EarlierWork, EvaluationManifest, FilteredStep, Throughput
from clip_operator.report import publish_report
from clip_operator.request import ErrorBudget, EvaluationRequest, Shard
from clip_operator.resume import Continuation, PreviousOutput, ResumePoints, discard_leftovers, find_leftovers
from clip_operator.reuse import ScoreReuse, ScoreStore
from clip_operator.scoring import Outcomes, Scorer, Tally, derived_columns, describe_calibration
from clip_operator.storage import AccessDenied, ObjectInfo, Storage, StorageError, display
from clip_operator.tables import (
    WHOLE,
    AddedType,
    Fragment,
    TableReader,
    TableScan,
    TableWriter,
    check_conversion,
    create_table,
    file_type_of,
)

if TYPE_CHECKING:
    from clip_operator.model import ClipEncoder, Device

log = logging.getLogger(__name__)

_WHAT_WOULD_HELP = {
    "read": "Rows are read and tokenized by one processor: a faster one would help most.",
    "fetch": "Images nearer to the worker, or more bandwidth, would help most.",
    "decode": "More processors would help most, or, with large JPEGs, image_decoding='reduced'.",
    "encode": "A faster device for the model would help most.",
    "write": "A faster disk for temporary files would help most.",
}

# In a shorter run, starting is most of what there is to see.
_SECONDS_WORTH_ADVICE = 10

_LIBRARIES = ("airflow-clip-operator", "torch", "transformers", "tokenizers", "pillow", "numpy", "pyarrow")


def evaluate(
    request: EvaluationRequest, storage: Storage | None = None, stop: threading.Event | None = None
) -> EvaluationManifest:
    """Score every row of ``request.input`` and write ``request.output`` and, last, its manifest.

    Does nothing but return the manifest if the output is there already and its manifest proves that it was made of the
    same input, by the same request, with the same model (``request.overwrite`` forces the work). If a task instance of
    Airflow asks, that it did is written into the manifest.

    :param storage: where URIs lead; by default with boto3's own credentials.
    :param stop: set it, from any thread, to end the job soon with :class:`Cancelled`.
    :raises RequestError: the request cannot be carried out as it stands, whatever the data.
    :raises JobError: the job failed; the output was not touched.
    """
    storage = storage or Storage()
    stop = stop or threading.Event()
    started = datetime.now(UTC)
    output_type = file_type_of(request.output)
    images = image_loader(request, storage)
    data = find_input(storage, request.input)
    check_conversion(data.file_type, output_type)
    source = data.info
    checkpoint = model.find_checkpoint(request.model, request.revision, storage)
    if not request.overwrite and (done := finished(storage, request, source, checkpoint.digest)):
        log.info("%s is complete already: same input, request and model. Nothing to do.", display(request.output))
        discard_leftovers(storage, *request.outputs)
        return confirm(storage, done, request.requested_by) if request.requested_by else done
    check_may_write(storage, request)
    with scratch_folder() as folder, claimed(storage, request) as condition:
        local = data.fetch(folder, request.shard)
        with _in_its_shard(request.shard), open_checked(local.open, request) as (table, scan):
            if request.shard is None:
                _check_images(table, images, storage, request, stop)
            _check_not_stopped(stop)
            scores = ScoreStore(storage, request.reuse) if request.reuse is not None else None
            device = model.choose_device(request.device)
            encoder = model.load_encoder(checkpoint, device, request.precision, request.batch_size)
            reuse = ScoreReuse(scores, encoder.provenance, request, storage, images) if scores is not None else None
            scorer = Scorer(
                encoder,
                images if reuse is None else reuse.images,
                stop,
                reduced=request.image_decoding == "reduced",
                cache_bytes=request.embedding_cache_bytes,
                with_sentences=request.sentence_key is not None,
            )
            with _continuation(storage, request, source, encoder, device, folder / "previous") as continuation:
                fragment, added = _fragment(request.shard), _added_columns(request)
                collector = SampleCollector(request.shard) if request.report else None
                with create_table(folder / "output", output_type, table, added, fragment=fragment) as writer:
                    tally = _score(table, scan, scorer, continuation, reuse, collector, request, writer)
            samples = None if collector is None else collector.samples(images)
        _check_not_stopped(stop)
        output, filtered = publish_step(storage, folder / "output", request, condition, tally)
        manifest = _manifest(
            request, source, output, filtered, tally, continuation, reuse, scorer.throughput(), encoder, device, started
        )
        if samples is not None:
            publish_report(storage, manifest, samples)
        publish_manifest(storage, manifest)
    discard_leftovers(storage, *request.outputs)
    _log_summary(manifest)
    return manifest


def _check_images(
    table: TableReader, images: ImageLoader, storage: Storage, request: EvaluationRequest, stop: threading.Event
) -> None:
    """Raise :class:`JobError` if, as far as can be told at small cost, no image of the table can be had."""
    if request.rescore is not None and storage.find(request.output) is not None:
        return  # most rows have their scores, and need no image any more
    problem = no_image_comes(table, request, images, images.fetch, stop)
    if problem is None:
        return
    if _may_resume(storage, request):
        log.warning("Rows that an earlier try has scored keep their scores, but %s", problem)
        return
    raise JobError(f"{display(request.input)}: {problem}. Nothing was scored or written")


def _may_resume(storage: Storage, request: EvaluationRequest) -> bool:
    """Tell whether an earlier try may have scored rows, so that their images need not be there any more."""
    try:
        return any(left.resume_points for left in find_leftovers(storage, request.output))
    except AccessDenied:  # it cannot be told
        return True


@contextmanager
def _continuation(
    storage: Storage,
    request: EvaluationRequest,
    source: ObjectInfo,
    encoder: ClipEncoder,
    device: Device,
    path: Path,
) -> Iterator[Continuation]:
    """Open what earlier tries and runs have left of this work; a copy of a previous output goes to ``path``."""
    provenance = encoder.provenance
    here = EarlierWork(rows=0, device=device.name, libraries=dict(_library_versions()))
    points = ResumePoints(storage, request, version(source), provenance.digest, provenance.precision, here)
    with ExitStack() as stack:
        previous = None
        if manifest := rescorable(storage, request, source, provenance.digest, provenance.precision):
            previous = stack.enter_context(PreviousOutput(storage, manifest, path))
        try:
            yield Continuation(points, previous, request.resume_point_rows)
        except Exception:
            if points.saved_rows:
                log.info("The results of %s rows are kept for the next try", f"{points.saved_rows:,}")
            raise


def _score(
    table: TableReader,
    scan: TableScan,
    scorer: Scorer,
    continuation: Continuation,
    reuse: ScoreReuse | None,
    collector: SampleCollector | None,
    request: EvaluationRequest,
    writer: TableWriter,
) -> Tally:
    """Write ``table`` with the added columns, all but those that are known only when all rows are scored."""
    outcomes = Outcomes(request.on_error, ErrorBudget.of(request), display(image_root(request)), request.shard)
    if continuation.previous is not None:
        outcomes.tally.fall_back_on(continuation.previous.calibration)
    with show_progress(scan.rows) as progress:
        chunks = continuation.rows(table, request.input_image_key, request.input_text_key)
        for rows, results in scorer.score(chunks if reuse is None else reuse.rows(chunks)):
            scores = outcomes.scores(results)
            writer.write(rows.content, {request.output_key: scores, **derived_columns(request, results)})
            progress.update(outcomes.tally.rows, outcomes.tally.failed)
            if collector is not None:
                collector.add(rows, results)
            if reuse is not None:
                reuse.save(rows, results)
            continuation.save(rows, results)
            if rows.ends_segment:
                outcomes.check_so_far()
        if outcomes.tally.rows != scan.rows:
            raise JobError(
                f"{outcomes.tally.rows:,} rows were read but the input has {scan.rows:,}; nothing was written"
            )
        if reuse is not None:
            reuse.save_last()
        continuation.save_last()
        outcomes.check()
    return outcomes.tally


def _fragment(shard: Shard | None) -> Fragment:
    """Return which span of the whole output's text is to be written."""
    if shard is None or shard.standalone:
        return WHOLE
    return Fragment(first=shard.index == 0, last=shard.index == shard.of - 1)


def _added_columns(request: EvaluationRequest) -> dict[str, AddedType]:
    """Return the columns that are written with the rows, in the order of ``request.added_columns``."""
    texts = (request.error_key, request.sentence_key)
    written = (key for key in request.added_columns if key != request.percentile_key)
    return {key: AddedType.STRING if key in texts else AddedType.FLOAT64 for key in written}


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


def _check_not_stopped(stop: threading.Event) -> None:
    if stop.is_set():
        raise Cancelled("stopped before the output was written")


def _manifest(
    request: EvaluationRequest,
    source: ObjectInfo,
    output: ObjectInfo,
    filtered: FilteredStep | None,
    tally: Tally,
    continuation: Continuation,
    reuse: ScoreReuse | None,
    throughput: Throughput,
    encoder: ClipEncoder,
    device: Device,
    started: datetime,
) -> EvaluationManifest:
    finished = datetime.now(UTC)
    earlier_work = continuation.earlier_work()
    resumed = sum(work.rows for work in earlier_work)
    return EvaluationManifest(
        input=version(source),
        output=version(output),
        output_columns=[request.output_key],
        rows=tally.row_counts(resumed, 0 if reuse is None else reuse.reused, continuation.truncated_texts),
        scores=tally.statistics(),
        calibration=tally.calibration(),
        filtered=filtered,
        model=encoder.provenance,
        device=DeviceProvenance(name=device.name, reason=device.reason),
        throughput=throughput,
        libraries=dict(_library_versions()),
        earlier_work=earlier_work,
        sums=None if request.shard is None else tally.sums(),
        request=request,
        started_at=started,
        finished_at=finished,
        duration_seconds=round((finished - started).total_seconds(), 3),
    )


def _library_versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed as a package"  # such as this package itself, in a plugins folder


def _log_summary(manifest: EvaluationManifest) -> None:
    rows, scores = manifest.rows, manifest.scores
    if rows.resumed:
        log.info("%s of the rows had been scored before, and were taken over", f"{rows.resumed:,}")
    if manifest.request.reuse is not None:
        log.info(
            "The scores of %s of %s rows were in the score store %s",
            f"{rows.reused:,}",
            f"{rows.total:,}",
            display(manifest.request.reuse),
        )
    log.info(
        "Scored %s of %s rows in %.1f s; %s; wrote %s",
        f"{rows.scored:,}",
        f"{rows.total:,}",
        manifest.duration_seconds,
        f"mean {scores.mean:.4f}, from {scores.minimum:.4f} to {scores.maximum:.4f}" if scores else "no scores",
        display(manifest.output.uri),
    )
    if manifest.calibration is not None:
        log.info("%s", describe_calibration(manifest.calibration))
    if manifest.throughput is not None:
        _log_throughput(manifest.throughput)
    if rows.failures:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in rows.failures.items())
        log.warning("%s rows have no score (%s)", f"{rows.failed:,}", reasons)
    if rows.truncated_texts:
        log.warning(
            "%s texts were longer than the model's %d tokens and were cut",
            f"{rows.truncated_texts:,}",
            manifest.model.max_text_tokens,
        )


def _log_throughput(throughput: Throughput) -> None:
    shares = {name: f"{100 * share:.0f} %" for name, share in throughput.time_shares.items()}
    most = max(throughput.time_shares, key=lambda name: throughput.time_shares[name])
    log.info(
        "%s rows/s, %d images at a time. The model computed %s of the time; it waited %s for rows to be read, %s for "
        "images to be fetched, %s for them to be decoded, %s for rows to be written.%s",
        f"{throughput.rows_per_second:,.1f}",
        throughput.batch_size,
        *(shares[name] for name in ("encode", "read", "fetch", "decode", "write")),
        f" {_WHAT_WOULD_HELP[most]}" if throughput.seconds >= _SECONDS_WORTH_ADVICE else "",
    )
    log.info(
        "Encoded %s images and %s texts; %s rows repeated an earlier row's image, %s its text",
        f"{throughput.images_encoded:,}",
        f"{throughput.texts_encoded:,}",
        f"{throughput.images_reused:,}",
        f"{throughput.texts_reused:,}",
    )
