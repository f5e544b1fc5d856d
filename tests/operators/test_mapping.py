"""A task that is mapped so that its instances would write one output is refused when its DAG is parsed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import DAG, XComArg
from airflow.sdk.definitions.mappedoperator import MappedOperator

from clip_operator.errors import RequestError
from clip_operator.operators import ImageCLIPEvaluatorOperator

FIXED = {"cache_path": "/steps", "first_entry_file_name": "/rows.jsonl"}
TEXTS = ["text", "alt_text"]


@pytest.fixture(autouse=True)
def dag() -> Iterator[None]:
    with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        yield


def partial(**parameters: Any) -> Any:
    return ImageCLIPEvaluatorOperator.partial(task_id="score", **parameters)


def result() -> XComArg:
    return ImageCLIPEvaluatorOperator(task_id="before", **FIXED).output


class OwnPlaces(ImageCLIPEvaluatorOperator):
    """An operator of somebody's, whose output follows from a parameter of its own."""

    def __init__(self, *, name: str = "", **kwargs: Any) -> None:
        super().__init__(cache_path=f"/steps/{name}", **kwargs)


@pytest.mark.filterwarnings("ignore:Task .* was never mapped")
@pytest.mark.parametrize(
    ("fixed", "mapped"),
    [
        (FIXED, {"input_text_key": TEXTS}),
        ({"cache_path": "/steps"}, {"first_entry_file_name": ["/a.jsonl", "/b.jsonl"]}),
        (FIXED, {"file_name_prefix": ["a", "b"], "input_text_key": TEXTS}),  # four instances, two outputs
        ({**FIXED, "input_image_key": "{{ params.image }}"}, {"output_key": ["a", "b"]}),
    ],
)
def test_values_that_make_no_other_output_are_not_mapped(fixed: dict[str, Any], mapped: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"which differ in nothing that names the output: .*expand_kwargs\(\)"):
        partial(**fixed).expand(**mapped)


@pytest.mark.filterwarnings("ignore:Task .* was never mapped")
def test_what_another_task_returns_is_not_mapped_to_one_output() -> None:
    with pytest.raises(RequestError, match="this task maps input_text_key to several values"):
        partial(**FIXED).expand(input_text_key=result())


@pytest.mark.filterwarnings("ignore:Task .* was never mapped")
def test_sets_of_parameters_with_one_output_are_named() -> None:
    own = [{"input_text_key": "a", "step": 1}, {"input_text_key": "b"}, {"input_text_key": "c", "step": 1}]
    with pytest.raises(RequestError, match="instances 0 and 2 to parameters that name the same output"):
        partial(**FIXED).expand_kwargs(own)


@pytest.mark.filterwarnings("ignore:Task .* was never mapped")
@pytest.mark.parametrize(
    ("fixed", "mapped"),
    [
        ({"first_entry_file_name": "/a.jsonl", "embeddings_path": "/e"}, {"cache_path": ["/a", "/b"]}),
        ({"cache_path": "/s/{{ ti.map_index }}", "embeddings_path": "/e"}, {"first_entry_file_name": ["/a", "/b"]}),
    ],
)
def test_instances_are_not_mapped_to_one_folder_for_embeddings(fixed: dict[str, Any], mapped: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"each would write its embeddings over another's\. Map embeddings_path"):
        partial(**fixed).expand(**mapped)


@pytest.mark.filterwarnings("ignore:Task .* was never mapped")
def test_sets_of_parameters_with_one_folder_for_embeddings_are_named() -> None:
    folders = {"a": "/e", "b": "/eb", "c": "/e/", "d": "None", "e": "None"}
    own = [{"cache_path": f"/{name}", "embeddings_path": folder} for name, folder in folders.items()]
    with pytest.raises(RequestError, match="instances 0 and 2 to the same embeddings_path"):
        partial(first_entry_file_name="/rows.jsonl").expand_kwargs(own)
    mapped = partial(first_entry_file_name="/rows.jsonl").expand_kwargs([own[1], *own[3:]])
    assert isinstance(mapped, MappedOperator), "what is blank, or None as a template makes it, is no folder"


def test_shards_share_a_folder_for_embeddings() -> None:
    mapped = partial(**FIXED, embeddings_path="/e", plan="/plan.json").expand(
        shard=["00001-of-00002", "00002-of-00002"]
    )
    assert isinstance(mapped, MappedOperator)


@pytest.mark.parametrize(
    ("fixed", "mapped"),
    [
        (FIXED, {"file_name_prefix": ["a", "b"]}),
        (FIXED | {"embeddings_path": "/e/{{ ti.map_index }}"}, {"file_name_prefix": ["a", "b"]}),
        (FIXED | {"embeddings_path": " "}, {"file_name_prefix": ["a", "b"]}),
        (FIXED, {"step": [0, 1], "input_text_key": ["alt_text"]}),
        ({**FIXED, "file_name_prefix": "part_{{ ti.map_index }}"}, {"input_text_key": TEXTS}),
        ({"first_entry_file_name": "/rows.jsonl"}, {"cache_path": ["/a/{{ ti.map_index }}"], "output_key": ["a", "b"]}),
    ],
)
def test_what_makes_other_outputs_is_mapped(fixed: dict[str, Any], mapped: dict[str, Any]) -> None:
    assert isinstance(partial(**fixed).expand(**mapped), MappedOperator)


def test_what_cannot_be_told_yet_is_left_to_the_instances() -> None:
    upstream = result()
    assert isinstance(partial(**FIXED).expand_kwargs(upstream), MappedOperator)
    assert isinstance(
        ImageCLIPEvaluatorOperator.partial(task_id="both", **FIXED).expand_kwargs([upstream, upstream]), MappedOperator
    )
    assert isinstance(OwnPlaces.partial(task_id="own").expand(name=["a", "b"], input_text_key=TEXTS), MappedOperator)
