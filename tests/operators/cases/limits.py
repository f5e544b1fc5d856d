"""Tasks within an administrator's limits and outside, as a run's form may make them; see test_limited_airflow.py."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag

from clip_operator.operators import ImageCLIPEvaluatorOperator, clip_evaluation_group

FOLDER = os.environ["CLIP_TEST_FOLDER"]
SECRET = FOLDER.replace("/data", "/secret")
POD = {**json.loads(os.environ["CLIP_TEST_POD"]), "image": "scorer:1"}
DATASET: dict[str, Any] = {
    "first_entry_file_name": "{{ params.input }}",
    "file_name_prefix": "captions",
    "model_name": "{{ params.model }}",
    "aws_conn_id": "clip_store",
}
OUTSIDE: dict[str, dict[str, Any]] = {
    "input": {"first_entry_file_name": f"{SECRET}/captions.jsonl"},
    "climbing": {"first_entry_file_name": f"{FOLDER}/%2e%2e/secret/captions.jsonl"},
    "root": {"image_root": SECRET},
    "output": {"cache_path": SECRET},
    "scores": {"reuse": f"{SECRET}/scores"},
    "model": {"model_name": "/etc"},
    "hosts": {"image_hosts": "169.254.169.254"},
    "connection": {"aws_conn_id": None},
    "interpreter": {"python": "/bin/sh"},
    "latest": {"cache_path": SECRET, "step": "latest"},
    "plan": {"plan": f"{SECRET}/plan.json", "shard": "00001-of-00001"},
    "image": {"execution_mode": "kubernetes", "pod": {**POD, "image": "evil:1"}},
    "deferred_image": {"execution_mode": "kubernetes", "pod": {**POD, "image": "evil:1"}, "deferrable": True},
    "namespace": {"execution_mode": "kubernetes", "pod": {**POD, "namespace": "kube-system"}},
    "account": {"execution_mode": "kubernetes", "pod": {**POD, "service_account_name": "admin"}},
    "secret": {"execution_mode": "kubernetes", "pod": {**POD, "env_from": [{"secretRef": {"name": "admin"}}]}},
    "volume": {"execution_mode": "kubernetes", "pod": {**POD, "volumes": [{"name": "x", "hostPath": {"path": "/"}}]}},
    "template": {"execution_mode": "kubernetes", "pod": {**POD, "pod_template_file": "/etc/passwd"}},
}
PARAMS = {"input": f"{FOLDER}/captions.jsonl", "model": "builtin://shapes-clip"}


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params=PARAMS)
def within() -> None:
    ImageCLIPEvaluatorOperator(task_id="whole", cache_path=f"{FOLDER}/within/whole", **DATASET)
    ImageCLIPEvaluatorOperator(
        task_id="deferred",
        cache_path=f"{FOLDER}/within/deferred",
        execution_mode="kubernetes",
        deferrable=True,
        pod=json.dumps(POD),
        **DATASET,
    )
    clip_evaluation_group("divided", cache_path=f"{FOLDER}/within/divided", resume_point_rows=16, shards=2, **DATASET)


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params=PARAMS)
def outside() -> None:
    for task_id, wrong in OUTSIDE.items():
        given = {"cache_path": f"{FOLDER}/outside", **DATASET, **wrong}
        ImageCLIPEvaluatorOperator(task_id=task_id, **given)
    clip_evaluation_group("divided", **DATASET, cache_path=SECRET)
    ImageCLIPEvaluatorOperator.partial(task_id="mapped", **DATASET).expand(cache_path=[SECRET])


within()
outside()
