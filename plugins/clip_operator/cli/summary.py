"""What an evaluation came to, for a person at a terminal: in a few lines, with the places of what was written last."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from clip_operator.job.summary import speed_advice
from clip_operator.proof.gates import verdicts
from clip_operator.proof.manifest import Calibration, EvaluationManifest, RowCounts, describe_interval
from clip_operator.redaction import plain
from clip_operator.storage import display

_INDENT = 12
_NARROWEST = 40


def summary(manifest: EvaluationManifest, report: str | None, width: int) -> Iterator[str]:
    """Yield the lines, which stay in ``width`` columns as long as no place is longer.

    :param report: URI of the report; None where there is none.
    """
    for label, text, *places in (*_sayings(manifest), *_written_beside(manifest)):
        for number, line in enumerate(wrap(text, max(width, _NARROWEST) - _INDENT, break_on_hyphens=False)):
            yield _line("" if number else label, line)
        for place in places:
            yield _line("", display(place))
    yield _line("Output", display(manifest.output.uri))
    if report is not None:
        yield _line("Report", display(report))


def _line(label: str, text: str) -> str:
    return f"{label:<{_INDENT}}{text}"


def _sayings(manifest: EvaluationManifest) -> Iterator[tuple[str, str]]:
    rows, scores = manifest.rows, manifest.scores
    share = f" ({100 * rows.scored / rows.total:.1f} %)" if rows.total else ""
    yield "Rows", f"{rows.scored:,} of {rows.total:,} have a score{share}"
    if rows.failed:
        yield "No score", _failures(rows, manifest.request.error_key)
    if scores is not None:
        column = plain(manifest.request.output_key)
        yield "Score", f"mean {scores.mean:.4f}, from {scores.minimum:.4f} to {scores.maximum:.4f}; column {column}"
    if manifest.calibration is not None:
        yield from _calibrated(manifest.calibration)
    yield from _gates(manifest)
    if advice := speed_advice(manifest):
        yield "Speed", advice


def _written_beside(manifest: EvaluationManifest) -> Iterator[tuple[str, str, str]]:
    """Yield label, text and place of all that was asked for beside the output."""
    total, filtered, rejected, embeddings = (
        manifest.rows.total,
        manifest.filtered,
        manifest.rejected,
        manifest.embeddings,
    )
    if filtered is not None:
        yield "Kept", f"{filtered.rows:,} of {total:,} rows are in", filtered.output.uri
    if rejected is not None:
        yield "Rejected", f"the other {rejected.rows:,} rows are in", rejected.output.uri
    if embeddings is not None:
        yield "Embeddings", f"those of all {total:,} rows are in", embeddings.folder.uri


def _failures(rows: RowCounts, error_key: str | None) -> str:
    reasons = ", ".join(f"{count:,} {plain(reason)}" for reason, count in rows.failures.items())
    where = "--error-key adds a column with the reasons" if error_key is None else f"column {plain(error_key)}"
    return f"{rows.failed:,}: {reasons}; {where}"


def _gates(manifest: EvaluationManifest) -> Iterator[tuple[str, str]]:
    found = verdicts(manifest)
    for gate in found:
        yield "Gate", f"{'passed' if gate.passed else 'NOT PASSED'}: {plain(gate.words)}"
    if not found:
        yield "Gates", "none is set"


def _calibrated(calibration: Calibration) -> Iterator[tuple[str, str]]:
    few = f". Uncertain, of only {calibration.images:,} different images" if calibration.uncertain else ""
    yield (
        "AUC",
        f"{calibration.auc:.4f} ({describe_interval(calibration.auc_interval)}): the chance that a row scores "
        f"higher than a mismatched pair; 0.5 is guessing{few}",
    )
    yield (
        "Threshold",
        f"{calibration.threshold:.4f}: {100 * calibration.false_reject_rate:.1f} % of such rows score less, "
        f"{100 * calibration.false_accept_rate:.1f} % of mismatched pairs as much or more",
    )
