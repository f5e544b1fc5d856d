"""Manifests of made-up evaluations, for what is done with a manifest when the scoring is over."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import LIMITS
from clip_operator.scoring.histogram import GroupedHistogram

NOW = datetime(2026, 1, 1, tzinfo=UTC)

SCORES: dict[str, Any] = {
    "count": 60,
    "mean": 0.6,
    "standard_deviation": 0.1,
    "minimum": 0.2,
    "maximum": 0.9,
    "quantiles": {"p01": 0.21, "p05": 0.3, "p25": 0.5, "p50": 0.61, "p75": 0.7, "p95": 0.8, "p99": 0.89},
}
CALIBRATION: dict[str, Any] = {
    "mismatched": {**SCORES, "mean": 0.4},
    "images": 120,
    "auc": 0.85,
    "auc_interval": (0.8, 0.89),
    "threshold": 0.55,
    "false_accept_rate": 0.02,
    "false_accept_interval": (0.01, 0.04),
    "false_reject_rate": 0.25,
    "false_reject_interval": (0.16, 0.37),
    "histograms": {"start": 0.0, "bin_width": 0.5, "matched": [20, 40], "mismatched": [50, 10]},
}


def made_up_manifest(output: str = "s3://b/steps/captions_step1.jsonl", **fields: Any) -> EvaluationManifest:
    """Return the manifest of 64 rows, 60 of which have a score.

    :param fields: what differs; ``request`` is added to the ordinary request. Without ``scores`` no row has one; with
        ``filtered`` or ``rejected`` the request asks for that step.
    """
    request = {"input": "s3://b/captions.jsonl", "output": output, **fields.pop("request", {})}
    if filtered := fields.get("filtered"):
        limits = {name: filtered[name] for name in LIMITS if name in filtered}
        request |= {"filtered_output": filtered["output"]["uri"], **limits}
    if rejected := fields.get("rejected"):
        request |= {"rejected_output": rejected["output"]["uri"]}
    scored = 0 if "scores" in fields and fields["scores"] is None else 60
    plain: dict[str, Any] = {
        "input": {"uri": request["input"], "size": 1000, "etag": "i"},
        "output": {"uri": output, "size": 2000, "etag": "o"},
        "output_columns": ["clip_score"],
        "rows": {
            "total": 64,
            "scored": scored,
            "failed": 64 - scored,
            "failures": {"image_missing": 64 - scored},
            "truncated_texts": 0,
        },
        "scores": SCORES,
        "calibration": CALIBRATION,
        "mismatched": GroupedHistogram().counted(),
        "model": {
            "name": "m",
            "source": "hub",
            "revision": None,
            "digest": "0",
            "architecture": "CLIPModel",
            "image_processor": "CLIPImageProcessor",
            "tokenizer": "CLIPTokenizer",
            "max_text_tokens": 77,
            "parameters": 1,
            "precision": "fp32",
        },
        "device": {"name": "cpu", "reason": "there is no other"},
        "throughput": {
            "seconds": 2.0,
            "rows_per_second": 32.0,
            "time_shares": {},
            "images_encoded": 62,
            "images_reused": 0,
            "texts_encoded": 62,
            "texts_reused": 0,
            "batch_size": 16,
        },
        "libraries": {},
        "request": request,
        "started_at": NOW,
        "finished_at": NOW,
        "duration_seconds": 2.5,
    }
    return EvaluationManifest.model_validate({**plain, **fields})
