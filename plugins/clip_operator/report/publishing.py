"""Puts the page, and what it is made of, beside the output."""

from __future__ import annotations

from urllib.parse import quote

from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.report.page import render
from clip_operator.report.picked import PickedRows
from clip_operator.report.samples import Samples
from clip_operator.report.worst_rows import as_csv
from clip_operator.steps import report_uri, samples_uri, worst_rows_uri
from clip_operator.storage import Storage, name_of


def publish_report(storage: Storage, manifest: EvaluationManifest, picked: PickedRows) -> None:
    """Write the samples, the list of the worst rows and the report beside the output."""
    output = manifest.output.uri
    storage.write(picked.samples.model_dump_json(indent=1).encode(), samples_uri(output))
    storage.write(as_csv(picked.worst), worst_rows_uri(output))
    storage.write(page_beside(storage, manifest, picked.samples, output).encode(), report_uri(output))


def page_beside(storage: Storage, manifest: EvaluationManifest, samples: Samples | None, output: str) -> str:
    """Return the report for a place beside an output, with a link to the list of the worst rows, if that is there."""
    listed = worst_rows_uri(output)
    return render(manifest, samples, worst_rows=None if storage.find(listed) is None else quote(name_of(listed)))
