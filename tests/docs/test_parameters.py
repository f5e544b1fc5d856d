"""What the documentation and the forms say of parameters is what the code takes."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

import pytest
from airflow.models import DagBag
from airflow.sdk import BaseOperator

from clip_operator.operators import ImageCLIPEvaluatorOperator, PlanShardsOperator, clip_evaluation_group
from clip_operator.operators.asked import ON_GATE
from clip_operator.operators.shards import OUTPUT_LAYOUTS
from clip_operator.operators.where import EXECUTION_MODES
from clip_operator.request import EvaluationRequest
from clip_operator.tables import file_type_of
from demo.airflow_home import REPOSITORY
from tests.docs.pages import inline_code, pages, table_under, text_of

PAGE = "docs/parameters.md"

# Defaults that are told in words.
TOLD: dict[str, Any] = {
    "": (None, ""),
    "none": (None, ()),
    "*required*": (inspect.Parameter.empty,),
    "32 MiB": (32 << 20,),
    "64 MiB": (64 << 20,),
    "100 million": (100_000_000,),
    "folder of the data set": (None,),
    "Airflow's `default_deferrable`": (None,),
    "that of the input": (None,),
}

# What is written as an assignment in the prose and is no parameter of the operator's: whose it is.
OTHERS = {"max_active_runs": "a DAG's", "sep": "a first line's, which Excel writes"}


# What the names of the steps give, or Airflow, its administrator, or the parameters `model_name` and `model_revision`.
GIVEN_OTHERWISE = {
    "input",
    "output",
    "filtered_output",
    "rejected_output",
    "image_prefixes",
    "requested_by",
    "model",
    "revision",
}

# What the forms fill in for the demo, where the operator has another default or none.
FILLED_IN = {"first_entry_file_name", "cache_path", "file_name_prefix", "model_name", "error_key"}
FILLED_IN_FOR_SHARDS = {"shards", "resume_point_rows"}

CHOICES: dict[str, tuple[Any, ...]] = {
    "execution_mode": EXECUTION_MODES,
    "gpus": (0, 1),
    "on_gate": ON_GATE,
    "output_layout": OUTPUT_LAYOUTS,
    "rescore": ("none", "failed"),  # a form's choice must not be empty
}


def parameters(operator: type[BaseOperator] = ImageCLIPEvaluatorOperator) -> dict[str, Any]:
    """Return an operator's own parameters and their defaults."""
    found = inspect.signature(operator).parameters
    return {name: found[name].default for name in found if name != "kwargs"}


def as_filled_in(value: object) -> str:
    """Return what stands for a value in a form."""
    return "none" if value in (None, "", ()) else str(value)


def told_in_docstring(operator: type[BaseOperator]) -> dict[str, str]:
    """Return the parameters in an operator's docstring, and what is said of each."""
    found = re.findall(r"^:param (\w+): (.*?)(?=^:|\Z)", inspect.getdoc(operator) or "", re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def documented() -> dict[str, str]:
    """Return the parameters in the tables, and their defaults there."""
    before_xcoms = text_of(PAGE).partition("## What the task hands on")[0]
    headings = re.findall(r"^## .+$", before_xcoms, re.MULTILINE)
    rows = [row for heading in headings for row in table_under(PAGE, heading) if row[0] != "Parameter"]
    return {row[0].strip("`"): row[1] for row in rows}


def test_every_parameter_is_documented_and_no_other() -> None:
    assert sorted(documented()) == sorted(parameters())


@pytest.mark.parametrize(("name", "default"), documented().items(), ids=documented())
def test_a_default_is_the_one_that_is_documented(name: str, default: str) -> None:
    real = parameters()[name]
    if default in TOLD:
        assert real in TOLD[default]
    else:
        assert str(real) == default.strip("`")


@pytest.mark.parametrize("operator", [ImageCLIPEvaluatorOperator, PlanShardsOperator])
def test_a_docstring_explains_every_parameter_in_the_order_of_the_signature(operator: type[BaseOperator]) -> None:
    assert list(told_in_docstring(operator)) == list(parameters(operator))


DOCSTRING = told_in_docstring(ImageCLIPEvaluatorOperator)


@pytest.mark.parametrize(("name", "text"), DOCSTRING.items(), ids=DOCSTRING)
def test_a_default_is_the_one_that_the_docstring_tells(name: str, text: str) -> None:
    real, told = parameters()[name], text.partition("Default: ")[2]
    if real in (None, "", (), inspect.Parameter.empty):
        assert not re.match(r"``|\d|True|False", told)
    else:
        words = [words for words, values in TOLD.items() if real in values]
        assert told.startswith(tuple(f"{word}." for word in (f"``{real}``", str(real), *words)))


def test_the_group_takes_what_divides_a_step_with_the_defaults_of_the_task_that_does_it() -> None:
    of_the_group = inspect.signature(clip_evaluation_group).parameters
    sizes = parameters(PlanShardsOperator)
    assert {name: of_the_group[name].default for name in sizes} == sizes


def test_every_field_of_the_request_is_a_parameter() -> None:
    assert EvaluationRequest.model_fields.keys() - parameters().keys() == GIVEN_OTHERWISE


@pytest.mark.parametrize(
    ("dag_id", "filled_in"),
    [("clip_evaluation", FILLED_IN), ("clip_in_shards", FILLED_IN | FILLED_IN_FOR_SHARDS)],
)
def test_a_form_asks_for_parameters_and_has_their_defaults_and_choices(dag_id: str, filled_in: set[str]) -> None:
    known = {**parameters(), **parameters(PlanShardsOperator)}
    form: Any = DagBag(REPOSITORY / "dags" / f"{dag_id}.py", safe_mode=False).dags[dag_id].params
    asked = dict(form.items())
    assert asked.keys() - known.keys() == set()
    differ = {name for name, param in asked.items() if as_filled_in(param.value) != as_filled_in(known[name])}
    assert differ == filled_in
    choices = {name: param.schema["enum"] for name, param in asked.items() if "enum" in param.schema}
    assert choices.pop("aws_conn_id", [known["aws_conn_id"]]) == [known["aws_conn_id"]]
    for suffix in choices.pop("cache_type"):
        file_type_of(f"step.{suffix}")  # raises for one that there is not
    for name, values in choices.items():
        assert set(values) == set(CHOICES.get(name) or get_args(EvaluationRequest.model_fields[name].annotation)), name


@pytest.mark.parametrize("page", pages())
def test_parameters_that_the_prose_sets_exist(page: str) -> None:
    if page == "CHANGELOG.md":
        return  # it tells of what is gone, too
    known = {
        *parameters(),
        *inspect.signature(BaseOperator.__init__).parameters,
        *inspect.signature(clip_evaluation_group).parameters,
        *EvaluationRequest.model_fields,
        *OTHERS,
    }
    named = [match[1] for code in inline_code(page) if (match := re.match(r"([a-z_]+)=[^=]", code))]
    assert [name for name in named if name not in known] == []


def test_metrics_that_are_named_are_sent_and_no_other() -> None:
    names = re.compile(r"clip\.[a-z_]+")
    sent = set(names.findall((REPOSITORY / "plugins/clip_operator/operators/metrics.py").read_text()))
    told = {name for row in table_under("docs/airflow-ui.md", "## Metrics") for name in names.findall(row[0])}
    assert told == {name for name in sent if name != "clip."}
