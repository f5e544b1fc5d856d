"""Fills the page's template with what a manifest and samples say."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from clip_operator.proof.gates import doubts, verdicts
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.report.histogram import histogram
from clip_operator.report.samples import Samples
from clip_operator.report.templates import templates
from clip_operator.report.worst_rows import MOST_WORST_ROWS
from clip_operator.storage import display, name_of

if TYPE_CHECKING:
    from jinja2 import Environment

    from clip_operator.proof.manifest import ScoreStatistics
    from clip_operator.request import Requester

_MOST_REQUEST = 50_000

# Of a text that is longer, these characters or so are seen at first.
_LONG_TEXT = 240

_QUANTILES = {"p01": "1 %", "p05": "5 %", "p25": "25 %", "p50": "50 %", "p75": "75 %", "p95": "95 %", "p99": "99 %"}

_TIME = {
    "encode": "the model computed",
    "read": "waited for rows",
    "fetch": "waited for images",
    "decode": "waited for decoding",
    "write": "waited for writing",
    "save": "waited for results to be saved",
}


def render(
    manifest: EvaluationManifest,
    samples: Samples | None,
    all_runs: str | None = None,
    requester: Requester | None = None,
    worst_rows: str | None = None,
    instance_name: str | None = None,
) -> str:
    """Return the report on one output: a whole HTML page, without scripts, that loads nothing.

    What comes from the data set is escaped, and a content security policy in the page allows nothing but its own
    style sheet and the thumbnails.

    :param samples: None where there are none; the page then shows numbers alone.
    :param all_runs: where the runs of the DAG are, if the page is to have a link there.
    :param requester: whose report it is; by default that of who asked last.
    :param instance_name: what Airflow calls the requester's instance of a mapped task, if it is known.
    :param worst_rows: the address of the list of the worst rows, relative to the page's own, if there is one.
    """
    style = _environment().get_template("style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    calibration = manifest.calibration
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            manifest=manifest,
            samples=samples or Samples(),
            all_runs=all_runs,
            worst_rows=worst_rows,
            instance_name=instance_name,
            most_worst_rows=MOST_WORST_ROWS,
            long_text=_LONG_TEXT,
            style_digest=digest,
            name=name_of(manifest.output.uri),
            requester=requester or manifest.confirmed_by or manifest.request.requested_by,
            histogram=None if calibration is None else histogram(calibration),
            quantiles=_quantiles(manifest.scores, None if calibration is None else calibration.mismatched),
            gates=verdicts(manifest),
            gate_doubts=doubts(manifest, manifest.request),
            time_shares=_time_shares(manifest),
            request=_request(manifest),
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = templates("clip_operator.report")
    environment.filters |= {
        "uri": display,
        "count": "{:,}".format,
        "score": "{:.4f}".format,
        "moment": _moment,
        "duration": _duration,
        "bytes": _bytes,
    }
    return environment


def _request(manifest: EvaluationManifest) -> str:
    """Return what was asked for, as JSON, or its beginning where it is none that a person would read."""
    asked = manifest.request.model_dump(mode="json", exclude_defaults=True, exclude={"requested_by"})
    text = json.dumps(asked, indent=2, ensure_ascii=False)
    return text if len(text) <= _MOST_REQUEST else f"{text[:_MOST_REQUEST]}…"


def _quantiles(scores: ScoreStatistics | None, mismatched: ScoreStatistics | None) -> list[tuple[str, str, str]]:
    """Return the rows of the table of percentiles: which, of the rows, of the mismatched pairs."""

    def cell(statistics: ScoreStatistics | None, key: str) -> str:
        value = None if statistics is None else statistics.quantiles.get(key)
        return "" if value is None else f"{value:.4f}"

    return [] if scores is None else [(label, cell(scores, k), cell(mismatched, k)) for k, label in _QUANTILES.items()]


def _time_shares(manifest: EvaluationManifest) -> list[tuple[str, float]]:
    """Return where the time went, the most first, and how much of it."""
    if manifest.throughput is None:
        return []
    shares = [(_TIME.get(name, name), share) for name, share in manifest.throughput.time_shares.items() if share > 0]
    return sorted(shares, key=lambda pair: -pair[1])


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = timedelta(seconds=round(seconds))
    return str(whole).removeprefix("0:")


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"
