"""Instances of one mapped task that would write one output: the second is refused, whenever it comes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_operator import model
from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.preflight import check_before_pod
from clip_operator.proof.claims import write_claim
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.resume import find_leftovers
from clip_operator.storage import Storage
from tests.conftest import SHAPES
from tests.meetings import MeetsAnotherRun

ALT = {"input_text_key": "alt_text"}


def refused(instance: int, other: int) -> str:
    return (
        rf"out\.jsonl is the output of instance {other} of this mapped task in this run, and instance {instance} would"
    )


@pytest.fixture
def request_of(shapes_dataset: Path, tmp_path: Path) -> Callable[..., EvaluationRequest]:
    def requested(map_index: int, run_id: str = "monday", **fields: Any) -> EvaluationRequest:
        asker = {"dag_id": "curate", "run_id": run_id, "task_id": "score", "map_index": map_index}
        defaults = {"input": f"{shapes_dataset}/captions.jsonl", "output": f"{tmp_path}/out.jsonl", "model": SHAPES}
        return parse_request({**defaults, "requested_by": asker, **fields})

    return requested


@pytest.fixture
def unloadable(tmp_path: Path) -> dict[str, str]:
    """A model that is found, and whose loading fails: what is refused with it, is refused before anything is scored."""
    folder = shutil.copytree(model.find_checkpoint(SHAPES, None, Storage()).path, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no weights")
    return {"model": str(folder)}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_one_instance_has_written_another_does_not_replace_in_the_same_run(
    request_of: Callable[..., EvaluationRequest], unloadable: dict[str, str], overwrite: bool
) -> None:
    first = evaluate(request_of(0))
    with pytest.raises(JobError, match=refused(1, 0)):
        evaluate(request_of(1, **unloadable, overwrite=overwrite))
    assert proof(Storage(), first.output.uri) == first
    assert list(find_leftovers(Storage(), first.output.uri)) == []
    assert evaluate(request_of(1)).rows == first.rows  # the very same work is done, whoever did it
    tomorrow = evaluate(request_of(1, "tuesday", **ALT))  # what is mapped, and in which order, may change with the run
    assert tomorrow.scores != first.scores


def test_what_one_instance_has_found_done_another_does_not_replace_in_the_same_run(
    request_of: Callable[..., EvaluationRequest], unloadable: dict[str, str]
) -> None:
    evaluate(request_of(0))
    found_done = evaluate(request_of(0, "tuesday"))
    with pytest.raises(JobError, match=refused(1, 0)):
        evaluate(request_of(1, "tuesday", **unloadable))
    assert proof(Storage(), found_done.output.uri) == found_done


@pytest.mark.parametrize("is_there", [False, True], ids=["a new output", "an output that stands"])
def test_an_instance_that_comes_while_another_is_at_work_is_refused_before_it_scores(
    request_of: Callable[..., EvaluationRequest], unloadable: dict[str, str], is_there: bool
) -> None:
    if is_there:
        evaluate(request_of(0))

    def come() -> None:
        late = request_of(1, "tuesday", **unloadable)
        for door in (lambda: evaluate(late), lambda: check_before_pod(late, Storage(), threading.Event())):
            with pytest.raises(JobError, match=refused(1, 0)):
                door()
        if is_there:
            with pytest.raises(JobError, match=refused(1, 0)):
                evaluate(request_of(1, "tuesday"))  # it would find done what is about to be replaced

    manifest = evaluate(request_of(0, "tuesday", **ALT), MeetsAnotherRun("000000000000.json", come))
    assert proof(Storage(), manifest.output.uri) == manifest
    assert manifest.request.requested_by == request_of(0, "tuesday").requested_by


@pytest.mark.parametrize("is_done", [False, True], ids=["has claimed it", "has written it"])
def test_an_instance_whose_claim_comes_behind_another_is_refused(
    request_of: Callable[..., EvaluationRequest], unloadable: dict[str, str], is_done: bool
) -> None:
    first, second = request_of(0), request_of(1, **unloadable)

    def come() -> None:
        if is_done:
            evaluate(first)
        else:
            write_claim(Storage(), first.output, first.requested_by)

    with pytest.raises(JobError, match=refused(1, 0)):
        evaluate(second, MeetsAnotherRun(".claim.json", come))
    assert [left.claim and left.claim.requested_by for left in find_leftovers(Storage(), first.output)] == (
        [] if is_done else [first.requested_by]
    )


def test_an_instance_goes_on_where_its_own_earlier_try_has_claimed(
    request_of: Callable[..., EvaluationRequest],
) -> None:
    own = request_of(0)
    for run_id in ("monday", "sunday"):
        other = Requester(dag_id="curate", run_id=run_id, task_id="score", map_index=0 if run_id == "monday" else 1)
        write_claim(Storage(), own.output, other)
        evaluate(own.model_copy(update={"overwrite": True}))
    assert list(find_leftovers(Storage(), own.output)) == []
