"""The Python in the documentation: DAGs are parsed by Airflow, all else is run."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from airflow.models import DagBag

from clip_operator.dataflow import ImageCLIPEvaluator
from clip_operator.job.evaluation import evaluate
from clip_operator.operators import ImageCLIPEvaluatorOperator
from clip_operator.request import parse_request
from demo.airflow_home import REPOSITORY
from tests.conftest import SHAPES
from tests.docs.pages import Block, blocks

# What examples leave out: where their names come from, and the task that goes on with the result.
IMPORTS = "from airflow.sdk import DAG, dag, task\nfrom clip_operator.operators import *\n"
NEXT_TASK = "@task\ndef report(columns):\n    print(columns)\n"


def is_dag(block: Block) -> bool:
    return any(mark in block.text for mark in ("@dag", "ImageCLIPEvaluatorOperator(", "clip_evaluation_group("))


def as_file(block: Block, dag_id: str) -> str:
    """The block as a file of a DAGs folder; what is no whole DAG is put into one."""
    if "@dag" in block.text:
        return block.text
    return f"{IMPORTS}{NEXT_TASK}with DAG({dag_id!r}):\n{textwrap.indent(block.text, '    ')}"


# Its blocks go on where those before them ended.
EMBEDDINGS = "docs/embeddings.md"

DAGS = {f"example_{number}": block for number, block in enumerate(filter(is_dag, blocks("python")))}


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> DagBag:
    folder = tmp_path_factory.mktemp("dags")
    for dag_id, block in DAGS.items():
        (folder / f"{dag_id}.py").write_text(as_file(block, dag_id))
    return DagBag(folder, safe_mode=False)


@pytest.mark.parametrize("dag_id", DAGS, ids=[block.where for block in DAGS.values()])
def test_airflow_parses_a_dag_that_is_shown(bag: DagBag, dag_id: str) -> None:
    assert {Path(file).stem: error for file, error in bag.import_errors.items()}.get(dag_id) is None
    found = [dag for dag in bag.dags.values() if Path(dag.fileloc).stem == dag_id]
    assert len(found) == 1
    tasks: list[Any] = list(found[0].tasks)
    assert "schedule=SCORES" in DAGS[dag_id].text or any(
        getattr(task, "operator_class", type(task)) is ImageCLIPEvaluatorOperator for task in tasks
    )


def test_all_other_python_is_run(shapes_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(shapes_dataset)
    # Stands in for the model of the same name at the hub, which tests do not reach.
    Path("openai").mkdir()
    builtin = REPOSITORY / "plugins/clip_operator/model/builtin" / SHAPES.partition("://")[2]
    Path("openai/clip-vit-base-patch32").symlink_to(builtin)
    Path("dags").symlink_to(REPOSITORY / "dags")
    others = [block for block in blocks("python") if not is_dag(block) and block.page != EMBEDDINGS]
    shown = "\n".join(block.text for block in others)
    assert all(name in shown for name in (ImageCLIPEvaluator.__name__, "evaluate(", "score(", "pandas"))
    for block in others:
        names: dict[str, Any] = {}
        exec(compile(block.text, block.where, "exec"), names)
        for test in [value for name, value in names.items() if name.startswith("test_")]:
            test()
    assert len(Path("cache/clip_eval_step1.jsonl").read_text().splitlines()) == 64


def test_what_is_shown_of_embeddings_is_run(
    shapes_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shapes_dataset, "data")
    images = [json.loads(line)["image_path"] for line in Path("data/captions.jsonl").read_text().splitlines()]
    shutil.copy(f"data/{images[20]}", f"data/{images[40]}")
    work = {"input": "data/captions.jsonl", "output": "out.jsonl", "resume_point_rows": 16}
    evaluate(parse_request({**work, "model": SHAPES, "embeddings_path": "embeddings/captions"}))
    seen: dict[str, Any] = {}
    for block in blocks("python"):
        if block.page == EMBEDDINGS and not is_dag(block):
            exec(compile(block.text, block.where, "exec"), seen)
    assert seen["images"].shape == (60, 128)
    assert set(seen["rows"]) - set(seen["kept"]) == {40}
