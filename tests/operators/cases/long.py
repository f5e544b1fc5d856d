"""Tasks that run long enough to be ended; test_operator.py, or their own time limit, ends them."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG

from clip_operator.operators import ImageCLIPEvaluatorOperator

FOLDER = os.environ["CLIP_TEST_FOLDER"]


POD = json.loads(os.environ["CLIP_TEST_POD"])
MODES: dict[str, dict[str, Any]] = {
    "long_in_process": {},
    "long_other_interpreter": {"python": sys.executable},
    "long_pod": {
        "execution_mode": "kubernetes",
        "pod": {**POD, "image": "scorer:1"},
    },
    "endless_pod": {
        "execution_mode": "kubernetes",
        "pod": {**POD, "image": "endless:1"},
        "execution_timeout": timedelta(seconds=5),
    },
}


for name, mode in MODES.items():
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        ImageCLIPEvaluatorOperator(
            task_id="score",
            first_entry_file_name=f"{FOLDER}/long.jsonl",
            cache_path=f"{FOLDER}/long",
            model_name="builtin://shapes-clip",
            embedding_cache_bytes=0,  # every repeated row is to take its time
            aws_conn_id="clip_store",
            **mode,
        )
