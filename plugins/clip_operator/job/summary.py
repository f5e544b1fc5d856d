"""What the log says of an evaluation when it is done."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clip_operator.machine.processors import multiplies_in_bf16
from clip_operator.proof.manifest import EvaluationManifest, Throughput, describe_calibration
from clip_operator.storage import display

log = logging.getLogger(__name__)

_WHAT_WOULD_HELP = {
    "read": "One processor reads and tokenizes all rows: a faster one, or shards in several tasks, would help most.",
    "fetch": "The processors wait for the store: images nearer to them, or more bandwidth, would help most.",
    "decode": "All processors decode: more of them would help most, or, with large JPEGs, image_decoding='reduced'.",
    "encode": "A faster device for the model would help most.",
    "write": "A faster disk for temporary files would help most.",
    "save": "A nearer store for what the next try may need, or more resume_point_rows, would help most.",
}

_HALF_PRECISION_WOULD_HELP = (
    "A faster device for the model would help most, or precision='bf16', for which this processor has instructions: "
    "scores then change by some 0.001 at most."
)

# In a shorter run, starting is most of what there is to see.
_SECONDS_WORTH_ADVICE = 10


def log_summary(manifest: EvaluationManifest, hints: Sequence[str] = ()) -> None:
    """Log how many rows have a score, what the scores are like, how fast it was, and what would have helped.

    :param hints: what may be wrong with image paths that led nowhere.
    """
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
        _log_throughput(manifest.throughput, speed_advice(manifest))
    if rows.failures:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in rows.failures.items())
        log.warning("%s rows have no score (%s)", f"{rows.failed:,}", reasons)
    for hint in hints:
        log.warning("%s", hint)
    if rows.truncated_texts:
        log.warning(
            "%s texts were longer than the model's %d tokens and were cut",
            f"{rows.truncated_texts:,}",
            manifest.model.max_text_tokens,
        )
    if rows.unturned_images:
        log.warning(
            "%s images are to be turned, as their EXIF says, and were scored as they are stored: with "
            "image_orientation='exif' they are turned upright first",
            f"{rows.unturned_images:,}",
        )


def speed_advice(manifest: EvaluationManifest) -> str:
    """Return what would have made it faster, most of all, or nothing of a run too short to tell."""
    throughput = manifest.throughput
    if throughput is None or throughput.seconds < _SECONDS_WORTH_ADVICE:
        return ""
    most = max(throughput.time_shares, key=lambda name: throughput.time_shares[name])
    in_fp32_on_cpu = manifest.model.precision == "fp32" and manifest.device.name.startswith("cpu")
    if most == "encode" and in_fp32_on_cpu and multiplies_in_bf16():
        return _HALF_PRECISION_WOULD_HELP
    return _WHAT_WOULD_HELP[most]


def _log_throughput(throughput: Throughput, advice: str) -> None:
    shares = {name: f"{100 * share:.0f} %" for name, share in throughput.time_shares.items()}
    log.info(
        "%s rows/s, %d images at a time. The model computed %s of the time; it waited %s for rows to be read, %s for "
        "images to be fetched, %s for them to be decoded, %s for rows to be written, %s for results to be saved.%s",
        f"{throughput.rows_per_second:,.1f}",
        throughput.batch_size,
        *(shares[name] for name in ("encode", "read", "fetch", "decode", "write", "save")),
        advice and f" {advice}",
    )
    log.info(
        "Encoded %s images and %s texts; %s rows repeated an earlier row's image, %s its text",
        f"{throughput.images_encoded:,}",
        f"{throughput.texts_encoded:,}",
        f"{throughput.images_reused:,}",
        f"{throughput.texts_reused:,}",
    )
