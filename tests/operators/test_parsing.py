"""What a DAG's file says wrongly as it stands is told when it is parsed; what is not known yet is nobody's fault."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from clip_operator.errors import RequestError
from clip_operator.operators import (
    ImageCLIPEvaluatorOperator,
    MergeShardsOperator,
    PlanShardsOperator,
    clip_evaluation_group,
)
from tests.operators.tasks import TaskInstance

pytestmark = pytest.mark.every_airflow

PLACES: dict[str, Any] = {"first_entry_file_name": "s3://b/captions.jsonl", "cache_path": "s3://b/steps"}
KUBERNETES = {"execution_mode": "kubernetes"}


@pytest.fixture(autouse=True)
def dag() -> Iterator[DAG]:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as made:
        yield made


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": "many"}, "batch_size: .*must be a number of images"),
    ({"precision": "fp8"}, "precision: Input should be"),
    ({"max_error_rate": 1.5}, "max_error_rate: "),
    ({"max_error_rates": {"no_reason": 0.1}}, "max_error_rates"),
    ({"image_hosts": ["me:secret@a.org"]}, "image_hosts"),
    ({"output_key": "text"}, "the column 'text' is read and written"),
    ({"cosine_key": "clip_score"}, "two of the columns to add are both called 'clip_score'"),
    ({"delimiter": "|", "quotechar": "|"}, "must be different characters"),
    ({"aggregate": "all", "min_score": 0.5}, "does not go with min_score"),
    ({"rescore": "failed", "sentence_key": "worst"}, "does not go with sentence_key"),
    ({"min_auc": "much"}, "min_auc: "),
    ({"min_mean_score": 1.2}, "min_mean_score: "),
    ({"on_gate": "ignore"}, "on_gate must be"),
    ({"step": -1}, "step must be a whole number"),
    ({"first_entry_file_name": ""}, "step 0 is the file that first_entry_file_name names"),
    ({"cache_path": "s3://me:secret@b/steps"}, "must not hold a password"),
    ({"cache_path": "s3:/b/steps"}, "two slashes follow the scheme"),
    ({"cache_type": "pickle"}, "is a pickle"),
    ({"cache_type": "csv.gz", "first_entry_file_name": "s3://b/x.parquet"}, "A parquet table cannot be written as csv"),
    ({"first_entry_file_name": "s3://b/steps/dataflow_cache_step_step1.jsonl"}, "input and output are the same object"),
    ({"model_name": None}, "model_name must not be empty"),
    ({"shard": "00001-of-00002"}, "shard without plan"),
    ({"plan": "s3://b/plan.json"}, "plan without shard"),
    ({"execution_mode": "spaceship"}, "execution_mode must be"),
    ({"gpus": 1}, "gpus: for a pod, which the task has not"),
    ({"pod": {"image": "{{ var.value.image }}"}}, "pod: for a pod, which the task has not"),
    ({"gpus": "1", "pod": '{"image": "clip:1"}'}, "gpus and pod: for a pod, which the task has not"),
    ({"gpus": 2, "execution_mode": "{{ params.mode }}"}, "gpus must be 0 or 1, not 2"),
    (KUBERNETES, "pod needs an image"),
    ({**KUBERNETES, "pod": {"namespace": "ml"}}, "pod needs an image"),
    ({**KUBERNETES, "pod": "{'namespace': 'ml'}"}, "pod needs an image"),
    ({**KUBERNETES, "pod": {"image": "clip:1"}, "deferrable": "perhaps"}, "deferrable: "),
    ({**KUBERNETES, "pod": {"image": "clip:1"}, "max_api_outage_seconds": -1}, "max_api_outage_seconds must not be"),
]


@pytest.mark.parametrize(("given", "words"), WRONG, ids=str)
def test_a_value_that_is_wrong_as_it_stands_is_told_when_the_dag_is_parsed(given: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        ImageCLIPEvaluatorOperator(task_id="t", **{**PLACES, **given})


@pytest.mark.filterwarnings("ignore:Task .* was never mapped")
@pytest.mark.parametrize(("given", "words"), WRONG, ids=str)
def test_so_is_one_of_a_task_that_is_mapped(given: dict[str, Any], words: str) -> None:
    mapped = {"file_name_prefix": ["a", "b"], **{name: [value] for name, value in given.items()}}
    instances = [{"file_name_prefix": "a"}, {"file_name_prefix": "b", **given}]
    if "first_entry_file_name" in given and "steps" in given["first_entry_file_name"]:
        given, mapped, instances = {**given, "file_name_prefix": "dataflow_cache_step"}, {}, [given]
    for fixed, of_each in ((given, {"file_name_prefix": ["a", "b"]}), ({}, mapped)):
        if of_each and "file_name_prefix" not in fixed:
            own = {name: value for name, value in {**PLACES, **fixed}.items() if name not in of_each}
            with pytest.raises(RequestError, match=words):
                ImageCLIPEvaluatorOperator.partial(task_id="t", **own).expand(**of_each)
    names = {name for each in instances for name in each}
    own = {name: value for name, value in PLACES.items() if name not in names or name == "first_entry_file_name"}
    own = {name: value for name, value in own.items() if not all(name in each for each in instances)}
    with pytest.raises(RequestError, match=words):
        ImageCLIPEvaluatorOperator.partial(task_id="t", **own).expand_kwargs(
            [{**{name: PLACES[name] for name in PLACES if name not in own}, **each} for each in instances]
        )


IT = "{{ it }}"


@pytest.mark.parametrize(
    "given",
    [
        *[{name: IT} for name in ImageCLIPEvaluatorOperator.template_fields],
        dict.fromkeys(ImageCLIPEvaluatorOperator.template_fields, IT),
        {"output_key": IT, "cosine_key": "clip_score"},
        {"input_text_key": IT, "output_key": "text"},
        {"delimiter": IT, "escapechar": ","},
        {"quotechar": IT, "delimiter": '"'},
        {"aggregate": "all", "min_score": "{% if it %}0.5{% endif %}"},
        {"rescore": "failed", "sentence_key": IT},
        {"first_entry_file_name": "s3://b/steps/dataflow_cache_step_step1.jsonl", "file_name_prefix": IT},
        {"first_entry_file_name": "s3://b/x.parquet", "cache_type": IT},
        {"first_entry_file_name": "s3://b/folder/", "cache_type": "parquet"},
        {"first_entry_file_name": "hf:owner/name.parquet", "cache_type": "jsonl"},
        {"first_entry_file_name": "", "step": 1},
        {"first_entry_file_name": "", "step": IT},
        {"execution_mode": IT, "gpus": 1, "pod": {"namespace": "ml"}},
        {"gpus": "0", "pod": "{}"},
        {"pod": {}},
        {**KUBERNETES, "pod": IT},
        {**KUBERNETES, "pod": {"image": IT}},
        {**KUBERNETES, "pod": {"pod_template_file": "/no/such/file.yaml"}},
        {"max_error_rates": {"image_unavailable": IT}},
        {"image_hosts": ["a.org", IT]},
    ],
    ids=str,
)
def test_what_is_not_known_yet_is_not_blamed(given: dict[str, Any]) -> None:
    ImageCLIPEvaluatorOperator(task_id="t", **{**PLACES, **given})


def test_what_another_task_returns_is_not_known() -> None:
    before = ImageCLIPEvaluatorOperator(task_id="before", **PLACES)
    outputs: Any = before.output
    ImageCLIPEvaluatorOperator(task_id="t", **{**PLACES, "batch_size": outputs, "output_key": outputs["output_path"]})


def test_a_dag_may_write_its_templates_with_other_marks() -> None:
    marks = {"variable_start_string": "[[", "variable_end_string": "]]", "line_statement_prefix": "%%"}
    with DAG("marked", schedule=None, jinja_environment_kwargs=marks):
        ImageCLIPEvaluatorOperator(task_id="t", **PLACES, batch_size="[[ params.images ]]", min_auc="%% if x")
        ImageCLIPEvaluatorOperator.partial(task_id="m", **PLACES, batch_size="[[ params.images ]]").expand(step=[0, 1])


class Described(ImageCLIPEvaluatorOperator):
    """An operator of somebody's, who says after the package's own ``__init__`` what it is to do."""

    def __init__(self, *, dataset: str, **kwargs: Any) -> None:
        super().__init__(cache_path="", **kwargs)
        self.first_entry_file_name = f"s3://b/{dataset}.jsonl"
        self.cache_path = f"s3://b/{dataset}"


class Plain(ImageCLIPEvaluatorOperator):
    """An operator of somebody's that says nothing of parameters."""


def test_an_operator_that_makes_parameters_of_others_is_not_blamed_for_what_it_has_not_said_yet() -> None:
    Described(task_id="t", dataset="shapes")
    Described.partial(task_id="m").expand(dataset=["a", "b"])
    with pytest.raises(RequestError, match="batch_size"):
        Plain(task_id="p", **PLACES, batch_size="many")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shards": "many"}, "shards must be a whole number from 1 on"),
        ({"shards": 2, "shard_rows": 10}, "shards and shard_rows say the same thing in different units"),
        ({"output_layout": "heap"}, "output_layout must be 'file' or 'parts'"),
        ({"output_layout": "parts", "min_score": 0.5}, "min_score takes all rows' scores"),
        ({"shards": 2, "rescore": "failed"}, "rescore keeps scores of a whole output"),
        ({"batch_size": "many"}, "batch_size"),
        ({"gpus": 1}, "gpus: for a pod"),
        ({"score": {"pod": {"image": "clip:1"}}}, "pod: for a pod"),
    ],
)
@pytest.mark.filterwarnings("ignore:Task .* was never mapped")
def test_a_group_is_told_when_its_dag_is_parsed(given: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        clip_evaluation_group(**{**PLACES, **given})


def test_a_group_that_is_right_is_not_blamed() -> None:
    first = {**PLACES, "first_entry_file_name": "s3://b/steps/x_step1.jsonl", "file_name_prefix": "x"}
    clip_evaluation_group("parts", **first, output_layout="parts", rescore="failed")
    clip_evaluation_group("it", **PLACES, output_layout=IT, min_score=0.5, shards=IT, shard_rows=IT, rescore=IT)
    clip_evaluation_group("pods", **PLACES, execution_mode="kubernetes", gpus=1, pod={"image": "clip:1"})
    PlanShardsOperator(task_id="plan", **PLACES, gpus=1)  # where shards are scored is no matter of these two
    MergeShardsOperator(task_id="merge", **PLACES, plan=IT, gpus=1)


@pytest.mark.parametrize("given", [{"gpus": 1}, {"pod": {"image": "clip:1"}}, {"pod": '{"image": "clip:1"}'}], ids=str)
def test_a_pods_parameters_that_come_to_a_task_on_the_worker_fail_it_for_good(given: dict[str, Any]) -> None:
    ti = TaskInstance({**PLACES, **dict.fromkeys(given, IT)}).next_try()
    for name, value in given.items():
        setattr(ti.operator, name, value)
    with pytest.raises(AirflowFailException, match="Set execution_mode='kubernetes', or leave it out"):
        ti.run()


def test_a_pod_without_an_image_is_told_before_the_store_and_the_cluster_are_asked() -> None:
    ti = TaskInstance({**PLACES, "aws_conn_id": "no_such", **KUBERNETES, "pod": IT}).next_try()
    ti.operator.pod = "{'namespace': 'ml'}"
    with pytest.raises(AirflowFailException, match="pod needs an image"):
        ti.run()


def test_an_instance_of_a_mapped_task_fails_alone_when_it_runs() -> None:
    made: Any = {**PLACES, "batch_size": "many", "_airflow_from_mapped": True}  # as Airflow makes one on a worker
    task: Any = ImageCLIPEvaluatorOperator(task_id="t", **made)
    assert task.batch_size == "many"
