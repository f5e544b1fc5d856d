"""Every DAG in dags/ parses without a murmur, says what a person wants to know of it, and parses cheaply."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.models import DagBag
from airflow.providers.common.compat.sdk import ParamValidationError
from airflow.sdk import AssetAlias
from airflow.sdk.definitions.param import Param

from clip_operator.operators import ImageCLIPEvaluatorOperator
from demo.airflow_home import REPOSITORY

pytestmark = pytest.mark.every_airflow

DAGS = REPOSITORY / "dags"
IDS = ["clip_daily", "clip_evaluation", "clip_in_shards", "clip_on_gpu", "clip_scores_ready", "clip_two_captions"]


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(DAGS, safe_mode=False)


def test_all_dags_import_without_errors_or_warnings(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert bag.captured_warnings == {}
    assert sorted(bag.dags) == IDS


@pytest.mark.parametrize("dag_id", IDS)
def test_a_dag_says_whose_it_is_and_what_it_does(bag: DagBag, dag_id: str) -> None:
    dag: Any = bag.dags[dag_id]
    assert dag.doc_md
    assert "clip" in dag.tags
    dag.check_cycle()
    for task in dag.tasks:
        assert task.owner not in ("", "airflow"), "an owner that was chosen"
        assert task.retries >= 1
        assert task.doc_md, f"{task.task_id} has no documentation"


@pytest.mark.parametrize("dag_id", IDS)
def test_a_part_of_a_dag_can_be_taken_which_copies_its_tasks(bag: DagBag, dag_id: str) -> None:
    dag: Any = bag.dags[dag_id]
    task_id = dag.task_ids[0]
    assert task_id in dag.partial_subset(task_id, include_downstream=True).task_ids


@pytest.mark.parametrize("dag_id", IDS)
def test_the_form_explains_every_parameter_and_its_default_is_valid(bag: DagBag, dag_id: str) -> None:
    params: Any = bag.dags[dag_id].params
    for name, param in params.items():
        assert isinstance(param, Param)
        assert param.schema.get("title"), f"{name} has no title"
        assert set(param.schema.get("values_display", ())) <= set(param.schema.get("enum", ())), name
        param.resolve()  # raises if the default is not valid


def test_only_the_daily_dag_has_a_schedule_and_it_waits_to_be_switched_on(bag: DagBag) -> None:
    scheduled = [dag_id for dag_id, dag in bag.dags.items() if isinstance(dag.schedule, str)]
    assert scheduled == ["clip_daily"]
    assert bag.dags["clip_daily"].is_paused_upon_creation is True


@pytest.mark.parametrize("dag_id", ["clip_daily", "clip_evaluation"])
def test_a_dag_of_one_task_tells_other_dags_of_its_scores(bag: DagBag, dag_id: str) -> None:
    dag: Any = bag.dags[dag_id]
    assert isinstance(dag.task_dict["score"], ImageCLIPEvaluatorOperator)
    assert dag.task_dict["score"].outlets == [AssetAlias("clip_scores")]
    assert bag.dags["clip_scores_ready"].schedule == AssetAlias("clip_scores")


def test_the_sharded_dag_plans_scores_and_merges_two_shards_at_a_time(bag: DagBag) -> None:
    dag: Any = bag.dags["clip_in_shards"]
    plan, score, merge = (dag.task_dict[f"clip_evaluation.{name}"] for name in ("plan", "score", "merge"))
    assert plan.downstream_task_ids == {score.task_id, merge.task_id}
    assert merge.upstream_task_ids == {plan.task_id, score.task_id}
    assert score.max_active_tis_per_dagrun == 2
    assert not plan.pod, "where shards are scored is no matter of the plan's"
    assert [[link.name for link in task.operator_extra_links] for task in (plan, score, merge)] == [
        [],
        ["CLIP report", "Scored step"],
        ["CLIP report", "Scored step"],
    ]
    assert merge.outlets == [AssetAlias("clip_scores")]
    assert not plan.outlets, "the step is not there yet"
    assert not score.partial_kwargs.get("outlets"), "nor is it there when one shard is"


@pytest.mark.parametrize("dag_id", ["clip_evaluation", "clip_in_shards"])
def test_every_parameter_of_the_form_is_used(bag: DagBag, dag_id: str) -> None:
    source = (DAGS / f"{dag_id}.py").read_text()
    for name in bag.dags[dag_id].params:
        assert f"params.{name}" in source or f'params["{name}"]' in source, f"{name} does nothing"


@pytest.mark.parametrize("dag_id", IDS)
def test_no_form_chooses_what_runs_with_which_rights(bag: DagBag, dag_id: str) -> None:
    """But for a connection among those that the DAG's file lists."""
    dag: Any = bag.dags[dag_id]
    listed = [f"{{{{ params.{name} }}}}" for name, param in dag.params.items() if "enum" in param.schema]
    for task in dag.tasks:
        for name in ("pod", "python", "aws_conn_id", "plan", "image_hosts"):
            value = task.partial_kwargs.get(name) if task.is_mapped else getattr(task, name, None)
            # Whether there is a pod, a form may say.
            text = str(value).replace("if params.execution_mode == 'kubernetes'", "")
            is_listed = name == "aws_conn_id" and value in listed
            assert is_listed or "params" not in text, f"{name} of {task.task_id}"


def test_the_form_offers_the_connections_that_the_dags_file_lists_and_no_other(bag: DagBag) -> None:
    params: Any = bag.dags["clip_evaluation"].params
    assert params.get_param("aws_conn_id").schema["enum"] == ["aws_default"]
    with pytest.raises(ParamValidationError, match="team_store"):
        params.get_param("aws_conn_id").resolve("team_store")


def test_the_chain_reads_what_the_first_task_says_it_wrote(bag: DagBag) -> None:
    dag: Any = bag.dags["clip_two_captions"]
    second = dag.task_dict["score_alt_text"]
    assert second.upstream_task_ids == {"score_text"}
    assert "output_step" in str(second.step)


HEAVY = ("torch", "transformers", "pandas", "numpy", "pyarrow", "PIL", "boto3", "kubernetes")


def loads(code: str, **variables: str) -> list[str]:
    """Return the modules that some code loads in a fresh interpreter, beyond what Airflow's task SDK loads itself."""
    program = f"""
import sys
import airflow.sdk, airflow.exceptions
before = set(sys.modules)
{code}
print("loaded", *sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    assert "Failed to import plugin" not in done.stdout + done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_the_operator_loads_nothing_heavy() -> None:
    loaded = loads("from clip_operator.operators import ImageCLIPEvaluatorOperator, clip_evaluation_group")
    assert "clip_operator.operators.image_clip_evaluator" in loaded
    light = "airflow.providers.common"  # compat: names that Airflow has moved about
    heavy = [name for name in loaded if name.startswith((*HEAVY, "airflow.providers."))]
    assert [name for name in heavy if not name.startswith(light)] == []


def test_a_task_that_scores_elsewhere_needs_nothing_of_the_scoring_side_but_its_storage() -> None:
    modules = ["work", "execution.local", "execution.kubernetes"]
    loaded = loads(f"import {', '.join(f'clip_operator.operators.{name}' for name in modules)}")
    assert "clip_operator.proof.standing" in loaded
    absent = ("torch", "transformers", "PIL", "pyarrow", "numpy", "pandas")
    assert [name for name in loaded if name.startswith(absent)] == []


@pytest.mark.parametrize("dag_id", IDS)
def test_parsing_a_dag_loads_nothing_heavy(dag_id: str) -> None:
    path = str(DAGS / f"{dag_id}.py")
    loaded = loads(f"import runpy; runpy.run_path({path!r})")
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_the_time_to_parse_the_dags_is_recorded(bag: DagBag, record_property: Callable[[str, object], None]) -> None:
    durations = {Path(stat.file).name: stat.duration.total_seconds() for stat in bag.dagbag_stats}
    assert {name.removesuffix(".py") for name in durations} == set(IDS)
    record_property("parse_seconds", durations)


def test_a_plugins_folder_imports_the_package_as_a_package_and_not_file_by_file(tmp_path: Path) -> None:
    # Airflow runs every file of its plugins folder as a module of its own unless .airflowignore keeps it away.
    loaded = loads(
        "from airflow.plugins_manager import ensure_plugins_loaded; ensure_plugins_loaded()",
        AIRFLOW__CORE__PLUGINS_FOLDER=str(REPOSITORY / "plugins"),
        AIRFLOW_HOME=str(tmp_path),
    )
    own_files = {path.stem for path in (REPOSITORY / "plugins" / "clip_operator").rglob("*.py")}
    assert "evaluation" in own_files
    assert own_files & set(loaded) == set()
