"""Puts the page, and what it is made of, beside the output."""

from __future__ import annotations

from urllib.parse import quote

from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.report.page import render
from clip_operator.report.picked import PickedRows
from clip_operator.report.worst_rows import as_csv
from clip_operator.steps import report_uri, samples_uri, worst_rows_uri
from clip_operator.storage import Storage, name_of


def publish_report(storage: Storage, manifest: EvaluationManifest, picked: PickedRows) -> None:
    """Write the samples, the list of the worst rows and the report beside the output."""
    output = manifest.output.uri
    storage.write(picked.samples.model_dump_json(indent=1).encode(), samples_uri(output))
    storage.write(as_csv(picked.worst), listed := worst_rows_uri(output))
    page = render(manifest, picked.samples, worst_rows=quote(name_of(listed)))
    storage.write(page.encode(), report_uri(output))
