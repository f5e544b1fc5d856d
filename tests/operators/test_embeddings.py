"""Embeddings by the operator's parameters: whole and in shards, and what the next task learns of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from clip_operator.errors import RequestError
from clip_operator.operators import ImageCLIPEvaluatorOperator, MergeShardsOperator, PlanShardsOperator
from tests.conftest import SHAPES
from tests.operators.tasks import TaskInstance


def run(operator: type[ImageCLIPEvaluatorOperator], ti: TaskInstance, **given: Any) -> list[str]:
    """Run one try of a task on a worker."""
    task = operator(task_id=ti.task_id, **given)
    context: Any = {"ti": ti, "run_id": ti.run_id, "task": task, "dag": SimpleNamespace(), "task_state_store": ti.state}
    return task.execute(context)


def parameters(data: Path, folder: Path, **other: Any) -> dict[str, Any]:
    return {
        "first_entry_file_name": f"{data}/captions.jsonl",
        "cache_path": f"{folder}/steps",
        "model_name": SHAPES,
        "aws_conn_id": None,
        "resume_point_rows": "16",
        "embeddings_path": folder / "embeddings",
        **other,
    }


def test_a_task_writes_them_and_tells_the_next_one_where(shapes_dataset: Path, tmp_path: Path) -> None:
    ti = TaskInstance({})
    assert run(ImageCLIPEvaluatorOperator, ti, **parameters(shapes_dataset, tmp_path)) == ["clip_score"]
    told = ti.xcoms["summary"]["embeddings"]
    assert told == {"path": f"{tmp_path}/embeddings", "files": 4, "rows": 64, "dimensions": 128, "dtype": "float16"}
    assert pq.read_table(told["path"]).column("row").to_pylist() == list(range(64))


def test_a_group_of_tasks_writes_the_rows_of_one(shapes_dataset: Path, tmp_path: Path) -> None:
    alone, divided = (
        parameters(shapes_dataset, tmp_path / name, embeddings_dtype="float32") for name in ("alone", "divided")
    )
    run(ImageCLIPEvaluatorOperator, TaskInstance({}), **alone)
    plan, merge = TaskInstance({}, task_id="plan"), TaskInstance({}, task_id="merge")
    names = run(PlanShardsOperator, plan, **divided, shards=3)
    shared = {**divided, "plan": plan.xcoms["plan"]}
    for index, name in enumerate(names):
        run(ImageCLIPEvaluatorOperator, TaskInstance({}, map_index=index), **shared, shard=name)
    run(MergeShardsOperator, merge, **shared)
    assert merge.xcoms["summary"]["embeddings"]["rows"] == 64
    tables = [pq.read_table(tmp_path / name / "embeddings") for name in ("alone", "divided")]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("wrong", [{"reuse": "/scores"}, {"aggregate": "mean"}, {"embeddings_dtype": "int8"}])
def test_what_does_not_go_with_them_is_told_when_the_dag_is_parsed(
    shapes_dataset: Path, tmp_path: Path, wrong: dict[str, str]
) -> None:
    with pytest.raises(RequestError, match="embeddings"):
        ImageCLIPEvaluatorOperator(task_id="score", **parameters(shapes_dataset, tmp_path, **wrong))
