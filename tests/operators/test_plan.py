"""The operator's parameters become the request, whatever templating made of them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from clip_operator.errors import RequestError
from clip_operator.operators import ImageCLIPEvaluatorOperator
from clip_operator.operators.plan import plan
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.storage import Storage

REQUESTER = Requester(dag_id="d", run_id="r", task_id="t")


def planned(**parameters: Any) -> EvaluationRequest:
    operator = ImageCLIPEvaluatorOperator(
        task_id="t", **{"first_entry_file_name": "s3://b/raw/in.jsonl", "cache_path": "s3://b/steps", **parameters}
    )
    return plan({name: getattr(operator, name) for name in operator.template_fields}, REQUESTER, Storage()).request


def test_every_parameter_of_the_operator_is_templated() -> None:
    own = set(inspect.signature(ImageCLIPEvaluatorOperator.__init__).parameters) - {"self", "kwargs"}
    assert own == set(ImageCLIPEvaluatorOperator.template_fields)


def test_the_operators_defaults_are_the_requests() -> None:
    request = planned()
    plain = EvaluationRequest(input=request.input, output=request.output)
    assert request.model_copy(update={"image_root": None, "requested_by": None}) == plain


def test_parameters_that_templating_made_strings_are_read_as_what_they_mean() -> None:
    request = planned(step="3", batch_size="16", overwrite="True", max_image_pixels="1000")
    assert request.input == "s3://b/steps/dataflow_cache_step_step3.jsonl"
    assert request.output == "s3://b/steps/dataflow_cache_step_step4.jsonl"
    assert (request.batch_size, request.overwrite, request.max_image_pixels) == (16, True, 1000)


def test_hosts_are_a_list_or_a_text_with_commas() -> None:
    assert planned(image_hosts=["a.org", "b.org"]).image_hosts == ("a.org", "b.org")
    assert planned(image_hosts="a.org, b.org").image_hosts == ("a.org", "b.org")
    assert planned(image_hosts=None).image_hosts == ()


def test_images_are_found_from_the_data_sets_folder_at_every_step() -> None:
    assert planned(step=5).image_root == "s3://b/raw"
    assert planned(step=5, first_entry_file_name="").image_root is None
    assert planned(step=5, image_root="s3://images").image_root == "s3://images"


@pytest.mark.parametrize("name", ["model_name", "input_text_key", "output_key", "on_error", "batch_size", "overwrite"])
def test_a_parameter_that_templating_left_empty_is_named_and_not_replaced_by_its_default(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} must not be empty"):
        planned(**{name: None})
