"""What the documentation says of parameters is what the code takes."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from airflow.sdk import BaseOperator

from clip_operator.operators import ImageCLIPEvaluatorOperator, clip_evaluation_group
from clip_operator.request import EvaluationRequest
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
}

# What is written as an assignment in the prose and is no parameter of the operator's: whose it is.
OTHERS = {"max_active_runs": "a DAG's"}


def parameters() -> dict[str, Any]:
    """The operator's own parameters and their defaults."""
    found = inspect.signature(ImageCLIPEvaluatorOperator.__init__).parameters
    return {name: found[name].default for name in found if name not in ("self", "kwargs")}


def documented() -> dict[str, str]:
    """The parameters in the tables, and their defaults there."""
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
