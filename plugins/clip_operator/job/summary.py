"""What the log says of an evaluation when it is done."""

from __future__ import annotations

import logging

from clip_operator.proof.manifest import EvaluationManifest, Throughput, describe_calibration
from clip_operator.storage import display

log = logging.getLogger(__name__)

_WHAT_WOULD_HELP = {
    "read": "Rows are read and tokenized by one processor: a faster one would help most.",
    "fetch": "Images nearer to the worker, or more bandwidth, would help most.",
    "decode": "More processors would help most, or, with large JPEGs, image_decoding='reduced'.",
    "encode": "A faster device for the model would help most.",
    "write": "A faster disk for temporary files would help most.",
    "save": "A nearer store for what the next try may need, or more resume_point_rows, would help most.",
}

# In a shorter run, starting is most of what there is to see.
_SECONDS_WORTH_ADVICE = 10


def log_summary(manifest: EvaluationManifest) -> None:
    """Log how many rows have a score, what the scores are like, how fast it was, and what would have helped."""
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
        "images to be fetched, %s for them to be decoded, %s for rows to be written, %s for results to be saved.%s",
        f"{throughput.rows_per_second:,.1f}",
        throughput.batch_size,
        *(shares[name] for name in ("encode", "read", "fetch", "decode", "write", "save")),
        f" {_WHAT_WOULD_HELP[most]}" if throughput.seconds >= _SECONDS_WORTH_ADVICE else "",
    )
    log.info(
        "Encoded %s images and %s texts; %s rows repeated an earlier row's image, %s its text",
        f"{throughput.images_encoded:,}",
        f"{throughput.texts_encoded:,}",
        f"{throughput.images_reused:,}",
        f"{throughput.texts_reused:,}",
    )
