"""Tasks that run long enough to be killed; test_operator.py kills them."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG

from clip_operator.operators import ImageCLIPEvaluatorOperator

FOLDER = os.environ["CLIP_TEST_FOLDER"]


MODES: dict[str, dict[str, Any]] = {
    "long_in_process": {},
    "long_other_interpreter": {"python": sys.executable},
    "long_pod": {
        "execution_mode": "kubernetes",
        "pod": {**json.loads(os.environ["CLIP_TEST_POD"]), "image": "scorer:1"},
    },
}


for name, mode in MODES.items():
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        ImageCLIPEvaluatorOperator(
            task_id="score",
            first_entry_file_name=f"{FOLDER}/long.jsonl",
            cache_path=f"{FOLDER}/long",
            model_name="builtin://shapes-clip",
            aws_conn_id="clip_store",
            **mode,
        )
