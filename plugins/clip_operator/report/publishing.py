"""Puts the page, and what it is made of, beside the output."""

from __future__ import annotations

from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.report.page import render
from clip_operator.report.samples import Samples
from clip_operator.steps import report_uri, samples_uri
from clip_operator.storage import Storage


def publish_report(storage: Storage, manifest: EvaluationManifest, samples: Samples) -> None:
    """Write the samples and the report beside the output."""
    output = manifest.output.uri
    storage.write(samples.model_dump_json(indent=1).encode(), samples_uri(output))
    storage.write(render(manifest, samples).encode(), report_uri(output))
