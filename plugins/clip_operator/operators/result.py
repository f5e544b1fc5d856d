"""What a task hands on when its work is done: XComs, asset events, metrics, and what its gates say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from clip_operator.operators.asset_events import add_asset_events
from clip_operator.operators.failures import tell_failure
from clip_operator.operators.metrics import send_metrics
from clip_operator.proof.gates import Verdict, doubts, verdicts
from clip_operator.proof.manifest import EvaluationManifest, describe_calibration
from clip_operator.request import EvaluationRequest
from clip_operator.steps import manifest_uri, report_uri
from clip_operator.storage import display

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def hand_on(
    context: Context,
    parameters: Mapping[str, Any],
    manifest: EvaluationManifest,
    output_step: int,
    request: EvaluationRequest,
) -> list[str]:
    """Push what the next task wants to know as XComs, tell the world, and return what is the task's own result.

    A shard's task only pushes: what is said of a step is said once, of the whole of it, by the task that completes it.

    :param request: the task's own. That of the manifest is another's where two tasks asked for one step.
    :raises AirflowFailException: the step does not pass its gates; what it hands on is pushed nevertheless.
    """
    is_whole = parameters["shard"] is None
    gates = verdicts(manifest, request)
    summary = _summary(manifest, gates)
    output = manifest.output.uri
    xcoms = {
        "output_path": output,
        "output_step": output_step,
        "summary": summary,
        "manifest": {"uri": manifest_uri(output), "aws_conn_id": parameters["aws_conn_id"]},
    }
    for key, value in xcoms.items():
        context["ti"].xcom_push(key=key, value=value)
    if is_whole:
        _log_result(manifest, output_step, gates)
        send_metrics(context, manifest)
        add_asset_events(context, output, {"output_path": output, "output_step": output_step, **summary})
    for doubt in doubts(manifest, request):
        log.warning("%s", doubt)
    if breaches := _breaches(gates):
        message = f"The step does not pass its gates: {'; '.join(breaches)}"
        if parameters["on_gate"] == "fail":
            failure = AirflowFailException(
                f"{message}. It is complete nevertheless: {display(output)}. {_see(manifest)}"
            )
            tell_failure(context, failure, "gate")
            raise failure
        log.warning("%s. %s", message, _see(manifest))
    return manifest.output_columns


def _breaches(gates: Sequence[Verdict]) -> list[str]:
    return [gate.words for gate in gates if not gate.passed]


def _summary(manifest: EvaluationManifest, gates: Sequence[Verdict]) -> dict[str, Any]:
    """Return what a person or the next task wants to know, small enough for XCom."""
    calibration, filtered, rejected = manifest.calibration, manifest.filtered, manifest.rejected
    embeddings = manifest.embeddings
    return {
        "rows": manifest.rows.model_dump(),
        "scores": manifest.scores and manifest.scores.model_dump(),
        "calibration": calibration
        and {
            "mismatched_mean": calibration.mismatched.mean,
            "images": calibration.images,
            "uncertain": calibration.uncertain,
            "auc": calibration.auc,
            "auc_interval": list(calibration.auc_interval),
            "threshold": calibration.threshold,
            "false_accept_rate": calibration.false_accept_rate,
            "false_accept_interval": list(calibration.false_accept_interval),
            "false_reject_rate": calibration.false_reject_rate,
            "false_reject_interval": list(calibration.false_reject_interval),
        },
        "filtered": filtered
        and {"output_path": filtered.output.uri, "rows": filtered.rows, **filtered.row_filter.limits},
        "rejected": rejected and {"output_path": rejected.output.uri, "rows": rejected.rows},
        "embeddings": embeddings
        and {
            "path": embeddings.folder.uri,
            "files": embeddings.files,
            "rows": embeddings.rows,
            "dimensions": embeddings.dimensions,
            "dtype": embeddings.dtype,
        },
        "gates": {
            "passed": all(gate.passed for gate in gates),
            "breaches": _breaches(gates),
            "verdicts": [asdict(gate) for gate in gates],  # none where no gate is set
        },
        "model": manifest.model.name,
        "device": manifest.device.name,
        "duration_seconds": manifest.duration_seconds,
        "rows_per_second": manifest.throughput and manifest.throughput.rows_per_second,
    }


def _log_result(manifest: EvaluationManifest, output_step: int, gates: Sequence[Verdict]) -> None:
    """Say in the log what came of it, below all that is folded away."""
    rows, scores, calibration, filtered = manifest.rows, manifest.scores, manifest.calibration, manifest.filtered
    log.info("Step %d is %s", output_step, display(manifest.output.uri))
    log.info("%s of %s rows have a score", f"{rows.scored:,}", f"{rows.total:,}")
    if scores is not None:
        spread = (scores.mean, scores.standard_deviation, scores.minimum, scores.maximum)
        log.info("Their mean is %.4f, the standard deviation %.4f, the range %.4f to %.4f", *spread)
    if calibration is not None:
        log.info("%s", describe_calibration(calibration))
    if filtered is not None:
        where = display(filtered.output.uri)
        log.info("%s rows with %s are in %s", f"{filtered.rows:,}", filtered.row_filter, where)
    if manifest.rejected is not None:
        log.info("All others are in %s: %s rows", display(manifest.rejected.output.uri), f"{manifest.rejected.rows:,}")
    if (embeddings := manifest.embeddings) is not None:
        log.info("Their embeddings are in %s, in %s files", display(embeddings.folder.uri), f"{embeddings.files:,}")
    for gate in gates:
        log.info("Gate %s: %s", "passed" if gate.passed else "not passed", gate.words)
    if not gates:
        log.info("No gate was set: min_auc and its like fail a step whose scores are too bad")
    log.info("%s", _see(manifest))


def _see(manifest: EvaluationManifest) -> str:
    output = manifest.output.uri
    if manifest.request.report:
        return f"See the report: {display(report_uri(output))}"
    return f"See the manifest: {display(manifest_uri(output))}"
