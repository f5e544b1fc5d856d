"""What a task hands on when its work is done: XComs, asset events, metrics, and what its gates say."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from clip_operator.operators.asset_events import add_asset_events
from clip_operator.operators.gates import Gates
from clip_operator.operators.metrics import send_metrics
from clip_operator.operators.task_instance import choice_of
from clip_operator.proof.manifest import EvaluationManifest, describe_calibration
from clip_operator.steps import manifest_uri, report_uri
from clip_operator.storage import display

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

ON_GATE = ("fail", "mark")


def check_gates(parameters: Mapping[str, Any]) -> None:
    """Raise :class:`RequestError` if what a task says of its gates is wrong, which nobody wants to learn at the end."""
    Gates.of(parameters)
    choice_of(parameters, "on_gate", ON_GATE)


def hand_on(
    context: Context, parameters: Mapping[str, Any], manifest: EvaluationManifest, output_step: int
) -> list[str]:
    """Push what the next task wants to know as XComs, tell the world, and return what is the task's own result.

    A shard's task only pushes: what is said of a step is said once, of the whole of it, by the task that completes it.

    :raises AirflowFailException: the step does not pass its gates; what it hands on is pushed nevertheless.
    """
    is_whole = parameters["shard"] is None
    gates = Gates.of(parameters) if is_whole else Gates()
    breaches = gates.breaches(manifest)
    summary = _summary(manifest, breaches)
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
        _log_result(manifest, output_step)
        send_metrics(context, manifest)
        add_asset_events(context, output, {"output_path": output, "output_step": output_step, **summary})
    if doubt := gates.doubt(manifest):
        log.warning("%s", doubt)
    if breaches:
        message = f"The step does not pass its gates: {'; '.join(breaches)}"
        if parameters["on_gate"] == "fail":
            raise AirflowFailException(f"{message}. It is complete nevertheless: {display(output)}. {_see(manifest)}")
        log.warning("%s. %s", message, _see(manifest))
    return manifest.output_columns


def _summary(manifest: EvaluationManifest, breaches: list[str]) -> dict[str, Any]:
    """Return what a person or the next task wants to know, small enough for XCom."""
    calibration, filtered, embeddings = manifest.calibration, manifest.filtered, manifest.embeddings
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
        and {"output_path": filtered.output.uri, "rows": filtered.rows, "min_score": filtered.min_score},
        "embeddings": embeddings
        and {
            "path": embeddings.folder.uri,
            "files": embeddings.files,
            "rows": embeddings.rows,
            "dimensions": embeddings.dimensions,
            "dtype": embeddings.dtype,
        },
        "gates": {"passed": not breaches, "breaches": breaches},
        "model": manifest.model.name,
        "device": manifest.device.name,
        "duration_seconds": manifest.duration_seconds,
        "rows_per_second": manifest.throughput and manifest.throughput.rows_per_second,
    }


def _log_result(manifest: EvaluationManifest, output_step: int) -> None:
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
        log.info("%s rows with a score of %.4f or more are in %s", f"{filtered.rows:,}", filtered.min_score, where)
    if (embeddings := manifest.embeddings) is not None:
        log.info("Their embeddings are in %s, in %s files", display(embeddings.folder.uri), f"{embeddings.files:,}")
    log.info("%s", _see(manifest))


def _see(manifest: EvaluationManifest) -> str:
    output = manifest.output.uri
    if manifest.request.report:
        return f"See the report: {display(report_uri(output))}"
    return f"See the manifest: {display(manifest_uri(output))}"
