"""The operator's parameters become the request, whatever templating made of them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import RequestError
from clip_operator.operators import ImageCLIPEvaluatorOperator, PlanShardsOperator, task_instance
from clip_operator.operators.work import Work, output_step, work_of
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.sharding import ShardPlan, plan_shards
from clip_operator.storage import Storage

PLACES: dict[str, Any] = {"first_entry_file_name": "/no/raw/in.jsonl", "cache_path": "/no/steps"}
REQUESTER = Requester(dag_id="d", run_id="r", task_id="t")


def parameters_of(**parameters: Any) -> dict[str, Any]:
    operator = ImageCLIPEvaluatorOperator(task_id="t", **{**PLACES, **parameters})
    return {name: getattr(operator, name) for name in operator.template_fields}


def planned(**parameters: Any) -> EvaluationRequest:
    return work_of(parameters_of(**parameters), REQUESTER, Storage()).request


@pytest.mark.every_airflow
def test_every_parameter_of_the_operator_is_templated() -> None:
    own = set(inspect.signature(ImageCLIPEvaluatorOperator.__init__).parameters) - {"self", "kwargs"}
    assert own == set(ImageCLIPEvaluatorOperator.template_fields)
    of_the_plan = set(inspect.signature(PlanShardsOperator.__init__).parameters) - {"self", "kwargs"}
    assert own | of_the_plan == set(PlanShardsOperator.template_fields)


def test_the_operators_defaults_are_the_requests() -> None:
    request = planned()
    plain = EvaluationRequest(input=request.input, output=request.output)
    assert request.model_copy(update={"image_root": None, "requested_by": None}) == plain


def test_parameters_that_templating_made_strings_are_read_as_what_they_mean() -> None:
    request = planned(step="3", batch_size="16", overwrite="True", max_image_pixels="1000")
    assert request.input == "/no/steps/dataflow_cache_step_step3.jsonl"
    assert request.output == "/no/steps/dataflow_cache_step_step4.jsonl"
    assert (request.batch_size, request.overwrite, request.max_image_pixels) == (16, True, 1000)


def test_hosts_are_a_list_or_a_text_with_commas() -> None:
    assert planned(image_hosts=["a.org", "b.org"]).image_hosts == ("a.org", "b.org")
    assert planned(image_hosts="a.org, b.org").image_hosts == ("a.org", "b.org")
    assert planned(image_hosts=None).image_hosts == ()


def test_a_tab_is_a_delimiter_however_it_is_written_and_a_blank_string_is_none() -> None:
    for written in ("\t", "\\t", "tab"):
        operator = ImageCLIPEvaluatorOperator(task_id="score", **PLACES, delimiter=written)
        rendered = task_instance.parameters_of(operator, operator.template_fields)
        assert planned(delimiter=rendered["delimiter"]).delimiter == "\t"
    operator = ImageCLIPEvaluatorOperator(task_id="score", **PLACES, delimiter=" ", quotechar="")
    assert task_instance.parameters_of(operator, ["delimiter", "quotechar"]) == {"delimiter": None, "quotechar": None}


@pytest.mark.parametrize("step", [0, "latest"])
@pytest.mark.parametrize(
    ("name", "uri", "words"),
    [
        ("first_entry_file_name", "s3://", "first_entry_file_name='s3://': .*needs a bucket"),
        (
            "first_entry_file_name",
            "s3://user@b/x.jsonl",
            "first_entry_file_name='s3://b/x.jsonl': .* must not hold a password",
        ),
        ("cache_path", "s3:/b/steps", "cache_path='s3:/b/steps': two slashes follow the scheme, as in s3://b/steps"),
    ],
)
def test_a_place_that_no_store_can_be_asked_for_is_a_wrong_parameter(
    step: object, name: str, uri: str, words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        planned(step=step, **{name: uri})


def test_images_are_found_from_the_data_sets_folder_at_every_step() -> None:
    assert planned(step=5).image_root == "/no/raw"
    assert planned(step=5, first_entry_file_name="").image_root is None
    assert planned(step=5, first_entry_file_name="hf:/data/pairs:train").image_root == "/data/pairs"
    assert planned(step=5, first_entry_file_name="hf://datasets/a/x.jsonl").image_root == "hf://datasets/a"
    assert planned(step=5, image_root="s3://images").image_root == "s3://images"


def test_the_rows_to_keep_have_a_series_of_steps_of_their_own() -> None:
    request = planned(step=3, file_name_prefix="captions", min_score="0.6")
    assert (request.min_score, request.filtered_output) == (0.6, "/no/steps/captions_filtered_step4.jsonl")
    assert planned(min_score="threshold").min_score == "threshold"
    assert planned().filtered_output is None
    assert planned(keep_top="0.3").filtered_output == "/no/steps/dataflow_cache_step_filtered_step1.jsonl"
    request = planned(step=3, file_name_prefix="captions", max_score=0.9, keep_rejected="True")
    assert request.rejected_output == "/no/steps/captions_rejected_step4.jsonl"
    assert planned(max_score=0.9, keep_rejected="no").rejected_output is None
    with pytest.raises(RequestError, match="without a filter no rows are rejected: give min_score, max_score, "):
        planned(keep_rejected=True)


@pytest.mark.parametrize("value", ["lots", "1.5"])
def test_a_score_to_keep_that_is_none_is_named(value: str) -> None:
    with pytest.raises(RequestError, match="min_score"):
        planned(min_score=value)


@pytest.mark.parametrize(
    "name", ["model_name", "report", "input_text_key", "output_key", "on_error", "batch_size", "overwrite"]
)
def test_a_parameter_that_templating_left_empty_is_named_and_not_replaced_by_its_default(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} must not be empty"):
        planned(**{name: None})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"image_path": f"{n}.png", "text": str(n)} for n in range(6)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def step_of(folder: Path, **parameters: Any) -> dict[str, Any]:
    defaults = {"first_entry_file_name": f"{folder}/in.jsonl", "cache_path": f"{folder}/steps", "resume_point_rows": 2}
    return parameters_of(**{**defaults, **parameters})


def shards_of(folder: Path, *, in_parts: bool = False, **parameters: Any) -> ShardPlan:
    work = work_of(step_of(folder, **parameters), REQUESTER, Storage(), in_parts=in_parts)
    return plan_shards(work.request, Storage(), shards=3)


def shard(shards: ShardPlan, folder: Path, **parameters: Any) -> Work:
    return work_of(step_of(folder, plan=shards.uri, shard=shards.names[1], **parameters), REQUESTER, Storage())


@pytest.mark.parametrize("step", [0, "0", "latest"])
def test_a_shard_is_its_part_of_the_step_that_was_planned(folder: Path, step: object) -> None:
    shards = shards_of(folder, step=step)
    work = shard(shards, folder, step=step)
    assert work.request == shards.shard_request("00002-of-00003", REQUESTER)
    assert work.output_step == 1
    assert work.shard_label == "2 of 3, rows 3\N{EN DASH}4"


def test_a_shard_of_a_step_with_all_there_is_to_add_is_its_part_of_it(folder: Path) -> None:
    added: dict[str, Any] = {
        "cosine_key": "a",
        "clipscore_key": "b",
        "sentence_key": "c",
        "percentile_key": "d",
        "min_score": 0.5,
        "max_score": 0.9,
        "min_percentile": 90,
        "keep_top": 0.5,
        "keep_rejected": True,
    }
    shards = shards_of(folder, **added)
    assert shard(shards, folder, **added).request == shards.shard_request("00002-of-00003", REQUESTER)


def test_how_a_shard_is_scored_is_its_own_matter_but_not_where_it_saves_its_results(folder: Path) -> None:
    shards = shards_of(folder)
    request = shard(shards, folder, batch_size=2, device="cpu", reuse=f"{folder}/store", resume_point_rows=5).request
    assert (request.batch_size, request.device, request.reuse) == (2, "cpu", f"{folder}/store")
    assert request.resume_point_rows == 2, "shards are cut at resume points"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"output_key": "other"}, "output_key"),
        ({"cosine_key": "cosine"}, "cosine_key"),
        ({"min_score": 0.6}, "min_score, filtered_output"),
        ({"keep_top": 0.6}, "keep_top, filtered_output"),
        ({"model_name": "other"}, "model_name"),
        ({"step": 1}, "step"),
        ({"cache_path": "/elsewhere"}, "cache_path"),
        ({"first_entry_file_name": "/elsewhere/in.jsonl", "image_root": "/images"}, "input, image_root"),
    ],
)
def test_a_shard_of_a_step_that_was_planned_otherwise_is_refused(
    folder: Path, parameters: dict[str, Any], named: str
) -> None:
    with pytest.raises(RequestError, match=rf"^{named}.*differ from those the step was planned with; clear the plan"):
        shard(shards_of(folder), folder, **parameters)


def test_a_step_in_part_files_has_the_number_in_its_folders_name(folder: Path) -> None:
    shards = shards_of(folder, in_parts=True)
    assert shards.request.output == f"{folder}/steps/dataflow_cache_step_step1/part-*.jsonl"
    assert output_step(step_of(folder), shards.request.output) == 1
    assert shard(shards, folder).output_step == 1


@pytest.mark.parametrize("name", ["shard", "plan"])
def test_a_shard_needs_its_plan_and_the_plan_a_shard(folder: Path, name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} without"):
        planned(**{name: "00001-of-00002"})
