"""Tasks that must fail, each for a reason of its own; test_operator.py says in which words."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag

from clip_operator.operators import ImageCLIPEvaluatorOperator

FOLDER = os.environ["CLIP_TEST_FOLDER"]
WRONG: dict[str, dict[str, Any]] = {
    # Rendered: what a DAG's file says itself is told when it is parsed.
    "mode": {"execution_mode": "{{ 'spaceship' }}"},
    "gpus": {"gpus": "{{ 1 }}"},
    "step": {"step": "{{ 'newest' }}"},
    "negative_step": {"step": "{{ -1 }}"},
    "batch_size": {"batch_size": "{{ 'many' }}"},
    "on_error": {"on_error": "{{ 'ignore' }}"},
    "model_name": {"model_name": "{{ '' }}"},
    "min_auc": {"min_auc": "{{ 'much' }}"},
    "on_gate": {"on_gate": "{{ 'ignore' }}"},
    "min_score": {"min_score": "{{ 2 }}"},
    "cache_type": {"cache_type": "{{ 'pickle' }}"},
    "cache_path": {"cache_path": "{{ '' }}"},
    "prefix": {"file_name_prefix": "{{ 'a/b' }}"},
    "column": {"input_text_key": "caption"},
    "bucket": {"first_entry_file_name": "s3://no-such-bucket/captions.jsonl"},
    "unknown_connection": {"aws_conn_id": "no_such_connection"},
    "wrong_secret": {"aws_conn_id": "wrong_secret"},
    "interpreter": {"python": "/no/such/python"},
    "column_in_other_interpreter": {"python": sys.executable, "input_text_key": "caption"},
    "password": {"cache_path": "s3://AKIA:{{ 'hush' ~ '/' ~ 'rendered' }}@b/steps"},
    "no_step": {"first_entry_file_name": "", "cache_path": f"{FOLDER}/nowhere", "step": "latest"},
}


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))
def refusals() -> None:
    for task_id, wrong in WRONG.items():
        parameters = {
            "first_entry_file_name": f"{FOLDER}/captions.jsonl",
            "cache_path": f"{FOLDER}/refused",
            "model_name": "builtin://shapes-clip",
            "aws_conn_id": "clip_store",
            **wrong,
        }
        ImageCLIPEvaluatorOperator(task_id=task_id, **parameters)


refusals()
