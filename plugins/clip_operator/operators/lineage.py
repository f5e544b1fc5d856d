"""OpenLineage: which data sets a task read and wrote, which column came of which, and how good the scores are.

Imported only when Airflow's OpenLineage provider asks, so what it needs is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Dataset, OutputDataset
from openlineage.client.facet_v2 import (
    column_lineage_dataset,
    data_quality_metrics_dataset,
    output_statistics_output_dataset,
)

from clip_operator.proof.manifest import EvaluationManifest, ObjectVersion
from clip_operator.request import EvaluationRequest
from clip_operator.steps import StepSeries
from clip_operator.storage import dataset_name, name_of, parent, refused, scheme_of


def lineage_before(parameters: Mapping[str, Any]) -> OperatorLineage[Any, Any]:
    """Return what a task is about to read, by its parameters; nothing where only the store knows, as of ``latest``."""
    step = str(parameters["step"])
    places = (parameters["first_entry_file_name"] or "", parameters["cache_path"])
    if not step.isdecimal() or not all(isinstance(place, str) and refused(place) is None for place in places):
        return OperatorLineage()
    series = StepSeries(
        parameters["first_entry_file_name"] or "",
        parameters["cache_path"],
        parameters["file_name_prefix"],
        parameters["cache_type"],
    )
    if int(step) == 0 and not series.first_entry_file_name:
        return OperatorLineage()
    return OperatorLineage(inputs=[Dataset(*_name(series.uri(int(step))))])


def lineage_after(manifest: EvaluationManifest) -> OperatorLineage[Any, Any]:
    """Return what a task has read and written, by its manifest. Of a shard, what it has read: it writes no data set."""
    request = manifest.request
    source = Dataset(*_name(manifest.input.uri))
    if request.shard is not None:
        return OperatorLineage(inputs=[source])
    outputs = [_output(manifest, manifest.output, manifest.rows.total, _quality(manifest, request))]
    selections = (selection for selection in (manifest.filtered, manifest.rejected) if selection is not None)
    outputs += [_output(manifest, selection.output, selection.rows, {}) for selection in selections]
    return OperatorLineage(inputs=[source], outputs=outputs)


def _output(
    manifest: EvaluationManifest, version: ObjectVersion, rows: int, facets: Mapping[str, Any]
) -> OutputDataset:
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows, size=version.size)
    return OutputDataset(
        *_name(version.uri),
        facets={"columnLineage": _column_lineage(manifest), **facets},
        outputFacets={"outputStatistics": statistics},
    )


def _quality(manifest: EvaluationManifest, request: EvaluationRequest) -> dict[str, Any]:
    rows, scores = manifest.rows, manifest.scores
    if scores is None:
        return {}
    column = data_quality_metrics_dataset.ColumnMetrics(
        nullCount=rows.failed if request.on_error == "null" else 0,
        count=scores.count,
        sum=scores.mean * scores.count,
        min=scores.minimum,
        max=scores.maximum,
        quantiles={str(int(name.removeprefix("p")) / 100): value for name, value in scores.quantiles.items()},
    )
    facet = data_quality_metrics_dataset.DataQualityMetricsDatasetFacet(
        columnMetrics={request.output_key: column}, rowCount=rows.total, bytes=manifest.output.size
    )
    return {"dataQualityMetrics": facet}


def _column_lineage(manifest: EvaluationManifest) -> column_lineage_dataset.ColumnLineageDatasetFacet:
    """Return from which columns the added ones were made. The others are the input's, byte for byte; which they are
    stands in no manifest, but for the two that were read."""
    namespace, name = _name(manifest.input.uri)
    request = manifest.request

    def field(column: str, subtype: str) -> column_lineage_dataset.InputField:
        transformation = column_lineage_dataset.Transformation(type="DIRECT", subtype=subtype)
        return column_lineage_dataset.InputField(namespace, name, column, [transformation])

    read = (request.input_image_key, request.input_text_key)
    added = {
        column: column_lineage_dataset.Fields([field(key, "TRANSFORMATION") for key in read])
        for column in request.added_columns
    }
    kept = {column: column_lineage_dataset.Fields([field(column, "IDENTITY")]) for column in read}
    return column_lineage_dataset.ColumnLineageDatasetFacet(fields={**kept, **added})


def _name(uri: str) -> tuple[str, str]:
    """Return namespace and name, by OpenLineage's conventions, of an object, of a file, or of the folder of many."""
    if "*" in name_of(uri):
        uri = parent(uri)
    scheme = scheme_of(uri)
    if (dataset := dataset_name(uri)) is not None:
        return "hf", dataset.strip("/")
    if scheme == "file":
        return "file", str(Path(uri.removeprefix("file://")).absolute())
    authority, _, path = uri.partition("://")[2].partition("/")
    return f"{scheme}://{authority}", path or "/"
