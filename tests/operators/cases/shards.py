"""Steps that many task instances score, in the real Airflow; test_shards.py says what they must have done."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag, task

from clip_operator.operators import ImageCLIPEvaluatorOperator, clip_evaluation_group

FOLDER = os.environ["CLIP_TEST_FOLDER"]
DATASET: dict[str, Any] = {
    "first_entry_file_name": f"{FOLDER}/captions.jsonl",
    "file_name_prefix": "captions",
    "model_name": "builtin://shapes-clip",
    "aws_conn_id": "clip_store",
    "error_key": "why",
    "max_error_rate": 1,
    "resume_point_rows": 8,
}
DAG: dict[str, Any] = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=UTC)}


@dag(**DAG)
def shards() -> None:
    ImageCLIPEvaluatorOperator(task_id="whole", cache_path=f"{FOLDER}/whole", **DATASET)

    @task
    def report(columns: list[str], summary: dict[str, object]) -> list[object]:
        return [columns, summary["rows"]]

    seven = clip_evaluation_group(
        "seven", shards="{{ 7 }}", cache_path=f"{FOLDER}/seven", min_auc="0.99", on_gate="mark", **DATASET
    )  # the same work as in `again`
    report(seven.output, seven.output["summary"])
    in_parts = clip_evaluation_group(
        "in_parts", shards=2, output_layout="parts", cache_path=f"{FOLDER}/parts", python=sys.executable, **DATASET
    )
    latest = clip_evaluation_group(
        "latest",
        shards=2,
        step="latest",
        cache_path=f"{FOLDER}/parts",
        score={"batch_size": 16},
        min_score="0.5",
        keep_top="0.9",
        keep_rejected=True,
        percentile_key="percentile",
        **{**DATASET, "input_text_key": "alt_text", "output_key": "score_of_alt_text", "error_key": None},
    )
    in_parts >> latest


@dag(**DAG)
def again() -> None:
    clip_evaluation_group("seven", shards=7, cache_path=f"{FOLDER}/seven", **DATASET)


@dag(**DAG)
def shards_in_pods() -> None:
    clip_evaluation_group(
        "three",
        shards=3,
        cache_path=f"{FOLDER}/pods",
        execution_mode="kubernetes",
        deferrable=True,
        pod={"image": "scorer:1", "namespace": "default", **json.loads(os.environ["CLIP_TEST_POD"])},
        **DATASET,
    )


@dag(**DAG)
def shard_refusals() -> None:
    refused: dict[str, Any] = {**DATASET, "cache_path": f"{FOLDER}/refused"}
    clip_evaluation_group("too_many", shards=2000, **refused)
    # Rendered: what a DAG's file says itself is told when it is parsed.
    clip_evaluation_group("no_number", shards="{{ 'many' }}", **refused)
    clip_evaluation_group("layout", output_layout="{{ 'heap' }}", **refused)
    clip_evaluation_group("percentile", output_layout="{{ 'parts' }}", percentile_key="percentile", **refused)
    clip_evaluation_group("filter", output_layout="{{ 'parts' }}", keep_top=0.5, **refused)
    clip_evaluation_group("gate", shards=2, min_auc="{{ 'much' }}", **refused)
    clip_evaluation_group("rescore", shards=2, **{**refused, "rescore": "{{ 'failed' }}"})
    clip_evaluation_group("column", shards=2, **{**refused, "input_text_key": "caption"})
    clip_evaluation_group("differs", shards=1, score={"output_key": "other"}, **refused)
    ImageCLIPEvaluatorOperator(task_id="no_plan", shard="{{ '00001-of-00002' }}", **refused)


shards()
again()
shards_in_pods()
shard_refusals()
