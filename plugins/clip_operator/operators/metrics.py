"""Metrics of a step through Airflow's own: to StatsD, Datadog or OpenTelemetry, wherever Airflow sends its."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import Stats

from clip_operator.proof.manifest import EvaluationManifest

if TYPE_CHECKING:
    from airflow.sdk import Context


def send_metrics(context: Context, manifest: EvaluationManifest) -> None:
    """Send what a step's manifest says. Names begin with ``clip.``; tags are ``dag_id`` and ``task_id``.

    Counters ``rows_scored`` and ``rows_failed`` and the timing ``duration`` (milliseconds) are of work that was done,
    so they are left out where the step was found complete; gauges are ``rows_per_second``, ``mean_score`` and ``auc``.
    """
    ti = context["ti"]
    tags = {"dag_id": ti.dag_id, "task_id": ti.task_id}
    if manifest.confirmed_at is None:
        Stats.incr("clip.rows_scored", manifest.rows.scored, tags=tags)
        Stats.incr("clip.rows_failed", manifest.rows.failed, tags=tags)
        Stats.timing("clip.duration", 1000 * manifest.duration_seconds, tags=tags)
        if manifest.throughput is not None:
            Stats.gauge("clip.rows_per_second", manifest.throughput.rows_per_second, tags=tags)
    if manifest.scores is not None:
        Stats.gauge("clip.mean_score", manifest.scores.mean, tags=tags)
    if manifest.calibration is not None:
        Stats.gauge("clip.auc", manifest.calibration.auc, tags=tags)
