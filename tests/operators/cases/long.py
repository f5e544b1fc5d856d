"""Tasks that run long enough to be killed; test_operator.py kills them."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

from airflow.sdk import dag

from clip_operator.operators import ImageCLIPEvaluatorOperator

FOLDER = os.environ["CLIP_TEST_FOLDER"]


def long(python: str | None) -> None:
    ImageCLIPEvaluatorOperator(
        task_id="score",
        first_entry_file_name=f"{FOLDER}/long.jsonl",
        cache_path=f"{FOLDER}/long",
        model_name="builtin://shapes-clip",
        aws_conn_id="clip_store",
        python=python,
    )


for name, interpreter in {"long_in_process": None, "long_other_interpreter": sys.executable}.items():
    dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), dag_id=name)(long)(interpreter)
