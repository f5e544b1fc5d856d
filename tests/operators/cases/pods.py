"""Tasks that score in pods, in one run of the real Airflow; test_operator.py says what they must have done."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

from airflow.sdk import dag
from kubernetes.client import models as k8s

from clip_operator.operators import ImageCLIPEvaluatorOperator

FOLDER = os.environ["CLIP_TEST_FOLDER"]
POD = json.loads(os.environ["CLIP_TEST_POD"])
DATASET = {
    "first_entry_file_name": f"{FOLDER}/captions.jsonl",
    "file_name_prefix": "captions",
    "model_name": "builtin://shapes-clip",
    "aws_conn_id": "clip_store",
    "execution_mode": "kubernetes",
}


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"image": "scorer:1", "gpus": ""})
def pods() -> None:
    ImageCLIPEvaluatorOperator(
        task_id="watched",
        cache_path=f"{FOLDER}/pods/watched",
        gpus="{{ params.gpus }}",
        pod={
            **POD,
            "image": "{{ params.image }}",
            "service_account_name": "{{ none or '' }}",
            "env_vars": [k8s.V1EnvVar(name="TASK", value="{{ ti.task_id }}")],
        },
        **DATASET,
    )
    ImageCLIPEvaluatorOperator(
        task_id="deferred",
        cache_path=f"{FOLDER}/pods/deferred",
        deferrable=True,
        pod=json.dumps({**POD, "image": "scorer:1", "logging_interval": 1}),
        **DATASET,
    )
    ImageCLIPEvaluatorOperator.partial(
        task_id="mapped", cache_path=f"{FOLDER}/pods/mapped", pod={**POD, "image": "scorer:1"}, **DATASET
    ).expand(output_key=["one"])


pods()
