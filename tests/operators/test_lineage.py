"""What the operator tells OpenLineage, as OpenLineage's own client writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.transport.file import FileConfig, FileTransport

from clip_operator.operators import ImageCLIPEvaluatorOperator
from clip_operator.operators.lineage import lineage_after
from tests.operators.manifests import NOW, made_up_manifest

pytestmark = pytest.mark.every_airflow

OUTPUT = "s3://b/steps/captions_step1.jsonl"


def told(lineage: OperatorLineage[Any, Any], folder: Path) -> dict[str, Any]:
    """Return the event that OpenLineage's client writes, as JSON."""
    event = RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=NOW.isoformat(),
        run=Run(runId=str(UUID(int=1)), facets=lineage.run_facets),
        job=Job(namespace="n", name="score", facets=lineage.job_facets),
        producer="https://airflow.apache.org",
        inputs=lineage.inputs,
        outputs=lineage.outputs,
    )
    path = folder / "events.json"
    OpenLineageClient(transport=FileTransport(FileConfig(str(path), append=True))).emit(event)
    written: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return written


def before(folder: Path, **parameters: Any) -> dict[str, Any]:
    defaults = {"first_entry_file_name": "s3://b/captions.jsonl", "cache_path": "s3://b/steps"}
    operator: Any = ImageCLIPEvaluatorOperator(task_id="score", **dict.fromkeys(defaults, "{{ it }}"))
    for name, value in {**defaults, **parameters}.items():
        setattr(operator, name, value)  # as it is rendered
    return told(operator.get_openlineage_facets_on_start(), folder)


def after(folder: Path, **fields: Any) -> dict[str, Any]:
    return told(lineage_after(made_up_manifest(OUTPUT, **fields)), folder)


def names(datasets: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(dataset["namespace"], dataset["name"]) for dataset in datasets]


def test_a_task_that_succeeded_tells_what_it_read_and_wrote(tmp_path: Path) -> None:
    filtered = {"output": {"uri": "s3://b/f.jsonl", "size": 9, "etag": "f"}, "min_score": 0.55, "rows": 45}
    rejected = {"output": {"uri": "s3://b/r.jsonl", "size": 4, "etag": "r"}, "rows": 19}
    event = after(tmp_path, filtered=filtered, rejected=rejected)
    assert names(event["inputs"]) == [("s3://b", "captions.jsonl")]
    written = [("s3://b", "steps/captions_step1.jsonl"), ("s3://b", "f.jsonl"), ("s3://b", "r.jsonl")]
    assert names(event["outputs"]) == written
    statistics = [output["outputFacets"]["outputStatistics"] for output in event["outputs"]]
    assert [(facet["rowCount"], facet["size"]) for facet in statistics] == [(64, 2000), (45, 9), (19, 4)]


def test_the_quality_of_the_scores_is_told_of_their_column(tmp_path: Path) -> None:
    event = after(tmp_path)
    facet = event["outputs"][0]["facets"]["dataQualityMetrics"]
    assert facet["rowCount"] == 64
    column = facet["columnMetrics"]["clip_score"]
    assert (column["nullCount"], column["count"], column["min"], column["max"]) == (4, 60, 0.2, 0.9)
    assert column["sum"] / column["count"] == pytest.approx(0.6)
    assert column["quantiles"]["0.5"] == 0.61
    assert column["quantiles"]["0.01"] == 0.21


def test_added_columns_come_of_image_and_text(tmp_path: Path) -> None:
    event = after(tmp_path, request={"cosine_key": "cosine", "input_text_key": "caption"})
    fields = event["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert set(fields) == {"image_path", "caption", "clip_score", "cosine"}
    read = [("s3://b", "captions.jsonl", "image_path"), ("s3://b", "captions.jsonl", "caption")]
    for column in ("clip_score", "cosine"):
        assert [(each["namespace"], each["name"], each["field"]) for each in fields[column]["inputFields"]] == read
        assert fields[column]["inputFields"][0]["transformations"][0]["subtype"] == "TRANSFORMATION"
    (own,) = fields["caption"]["inputFields"]
    assert own["transformations"][0]["subtype"] == "IDENTITY"


def test_a_task_that_starts_tells_what_it_will_read(tmp_path: Path) -> None:
    assert names(before(tmp_path)["inputs"]) == [("s3://b", "captions.jsonl")]
    step = before(tmp_path, step="3", file_name_prefix="captions")
    assert names(step["inputs"]) == [("s3://b", "steps/captions_step3.jsonl")]
    assert before(tmp_path, step="latest")["inputs"] == []
    assert before(tmp_path, first_entry_file_name="")["inputs"] == []


def test_a_place_with_a_password_is_told_to_nobody(tmp_path: Path) -> None:
    event = before(tmp_path, first_entry_file_name="s3://AKIA:hu/sh@b/captions.jsonl")
    assert event["inputs"] == []
    assert "sh@b" not in str(event)


def test_a_task_that_ended_without_a_step_tells_what_it_would_have_read(tmp_path: Path) -> None:
    operator = ImageCLIPEvaluatorOperator(
        task_id="score", first_entry_file_name="s3://b/captions.jsonl", cache_path="s3://b/steps"
    )
    event = told(operator.get_openlineage_facets_on_complete(None), tmp_path)
    assert names(event["inputs"]) == [("s3://b", "captions.jsonl")]
    assert event["outputs"] == []


def test_a_shard_tells_what_it_read(tmp_path: Path) -> None:
    shard = {"index": 0, "of": 2, "input_etag": "i", "start": 0, "stop": 10}
    event = after(tmp_path, request={"shard": shard})
    assert names(event["inputs"]) == [("s3://b", "captions.jsonl")]
    assert event["outputs"] == []


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/data/in.jsonl", ("file", "/data/in.jsonl")),
        ("file:///data/in.jsonl", ("file", "/data/in.jsonl")),
        ("gs://b/a/in.jsonl", ("gs://b", "a/in.jsonl")),
        ("s3://b/a/part-*.parquet", ("s3://b", "a")),
        ("hf:org/captions", ("hf", "org/captions")),
        ("hf://datasets/org/captions.jsonl", ("hf://datasets", "org/captions.jsonl")),
    ],
)
def test_data_sets_are_named_as_openlineage_names_them(uri: str, name: tuple[str, str], tmp_path: Path) -> None:
    assert names(after(tmp_path, request={"input": uri})["inputs"]) == [name]
