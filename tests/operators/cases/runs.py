"""Tasks that succeed, in one run of the real Airflow; test_operator.py says what they must have done."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

from airflow.sdk import dag

from clip_operator.operators import ImageCLIPEvaluatorOperator

FOLDER = os.environ["CLIP_TEST_FOLDER"]
DATASET = {
    "first_entry_file_name": f"{FOLDER}/captions.jsonl",
    "model_name": "builtin://shapes-clip",
    "aws_conn_id": "clip_store",
}


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"alt": "alt_text"})
def runs() -> None:
    first = ImageCLIPEvaluatorOperator(
        task_id="first", cache_path=f"{FOLDER}/chain", file_name_prefix="captions", error_key="why", **DATASET
    )
    latest = ImageCLIPEvaluatorOperator(
        task_id="latest",
        cache_path=f"{FOLDER}/chain",
        file_name_prefix="captions",
        step="latest",
        input_text_key="{{ params.alt }}",
        output_key="score_of_{{ params.alt }}",
        batch_size="{{ 4 * 4 }}",
        device="{{ none or '' }}",
        **DATASET,
    )
    first >> latest
    ImageCLIPEvaluatorOperator(
        task_id="other_interpreter",
        cache_path=f"{FOLDER}/other-interpreter",
        file_name_prefix="captions",
        python=sys.executable,
        **DATASET,
    )
    ImageCLIPEvaluatorOperator.partial(
        task_id="mapped", cache_path=f"{FOLDER}/mapped", output_key="score", **DATASET
    ).expand_kwargs(
        [
            {"file_name_prefix": "text", "input_text_key": "text"},
            {"file_name_prefix": "alt", "input_text_key": "alt_text"},
        ]
    )


runs()
