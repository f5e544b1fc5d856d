"""
### Score two caption columns, one step after the other

A chain of two evaluations on versioned steps: step 0 → **1** adds `clip_score` for the column `text`, step 1 → **2**
adds `clip_score_alt` for the column `alt_text`. The second task reads the step that the first one says it wrote, so
each step stays where it is and can be compared with the one before.

To compare two *models* instead, give the tasks different `model_name`s and the same `input_text_key`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import Param, dag

from clip_operator.operators import ImageCLIPEvaluatorOperator


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "first_entry_file_name": Param(
            "s3://clip-demo/shapes/captions.jsonl",
            type="string",
            minLength=1,
            title="Data set",
            description="URI of step 0, with the columns image_path, text and alt_text.",
        ),
        "cache_path": Param(
            "s3://clip-demo/shapes/two-captions",
            type="string",
            minLength=1,
            title="Folder of the steps",
            description="URI of the folder where steps 1 and 2 are written.",
        ),
        "model_name": Param(
            "builtin://shapes-clip",
            type="string",
            minLength=1,
            title="Model",
            description="A hub id, a folder, or an s3:// prefix.",
        ),
    },
    default_args={"owner": "data-platform", "retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["clip", "image-text", "example"],
    doc_md=__doc__,
)
def clip_two_captions() -> None:
    dataset = {
        "first_entry_file_name": "{{ params.first_entry_file_name }}",
        "cache_path": "{{ params.cache_path }}",
        "file_name_prefix": "captions",
        "model_name": "{{ params.model_name }}",
    }
    first = ImageCLIPEvaluatorOperator(
        task_id="score_text",
        doc_md="Step 0 → 1: adds `clip_score` for the column `text`.",
        step=0,
        input_text_key="text",
        output_key="clip_score",
        **dataset,
    )
    second = ImageCLIPEvaluatorOperator(
        task_id="score_alt_text",
        doc_md="Step 1 → 2: adds `clip_score_alt` for the column `alt_text`.",
        step="{{ ti.xcom_pull(task_ids='score_text', key='output_step') }}",
        input_text_key="alt_text",
        output_key="clip_score_alt",
        **dataset,
    )
    first >> second


clip_two_captions()
