"""Where the page and what it is made of stand: beside the output."""

from __future__ import annotations

from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.report.page import render
from clip_operator.report.samples import Samples, samples_uri
from clip_operator.steps import beside
from clip_operator.storage import Storage


def report_uri(output: str) -> str:
    """Return where the report on an output stands."""
    return beside(output) + ".report.html"


def publish_report(storage: Storage, manifest: EvaluationManifest, samples: Samples) -> None:
    """Write the samples and the report beside the output."""
    output = manifest.output.uri
    storage.write(samples.model_dump_json(indent=1).encode(), samples_uri(output))
    storage.write(render(manifest, samples).encode(), report_uri(output))
