"""Which step a task that asks for the latest one reads, whoever else writes steps, and however often it is tried."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.operators.latest_step import latest_step
from clip_operator.request import Requester, parse_request
from clip_operator.steps import StepSeries
from clip_operator.storage import Storage
from tests.conftest import SHAPES

MONDAY = Requester(dag_id="curate", run_id="monday", task_id="score")
TUESDAY = Requester(dag_id="curate", run_id="tuesday", task_id="score")
OTHER = Requester(dag_id="curate", run_id="monday", task_id="score_again")


@pytest.fixture
def series(shapes_dataset: Path, tmp_path: Path) -> StepSeries:
    shutil.copytree(shapes_dataset, tmp_path, dirs_exist_ok=True)
    return StepSeries(f"{tmp_path}/captions.jsonl", f"{tmp_path}/steps", "captions", "jsonl")


def write(series: StepSeries, step: int, requester: Requester | None, storage: Storage | None = None) -> None:
    """Have a step written from the one before it."""
    request = {
        "input": series.uri(step - 1),
        "output": series.uri(step),
        "output_key": f"score_{step}",
        "image_root": str(Path(series.first_entry_file_name).parent),
        "model": SHAPES,
        "requested_by": requester and requester.model_dump(),
    }
    with suppress(KeyboardInterrupt):
        evaluate(parse_request(request), storage)


def test_without_steps_it_is_the_first_entry(series: StepSeries) -> None:
    assert latest_step(Storage(), series, MONDAY)[0] == 0


def test_it_is_the_highest_step_of_another_task_or_run(series: StepSeries) -> None:
    write(series, 1, OTHER)
    write(series, 2, MONDAY)
    assert latest_step(Storage(), series, TUESDAY)[0] == 2
    assert latest_step(Storage(), series, None)[0] == 2


def test_a_retry_reads_what_the_first_try_read_and_not_what_it_wrote(series: StepSeries) -> None:
    write(series, 1, OTHER)
    write(series, 2, MONDAY)
    assert latest_step(Storage(), series, MONDAY)[0] == 1


def test_instances_of_a_mapped_task_read_the_same_step_though_one_has_written_the_next(series: StepSeries) -> None:
    first, second = (MONDAY.model_copy(update={"map_index": index}) for index in (0, 1))
    write(series, 1, first)
    assert latest_step(Storage(), series, second)[0] == 0
    assert latest_step(Storage(), series, second.model_copy(update={"run_id": "tuesday"}))[0] == 1


def test_a_task_that_is_cleared_after_later_ones_have_run_reads_what_it_read_before(series: StepSeries) -> None:
    write(series, 1, MONDAY)
    write(series, 2, OTHER)
    assert latest_step(Storage(), series, MONDAY)[0] == 0


def test_a_step_that_something_else_wrote_whole_counts(series: StepSeries) -> None:
    Storage().upload(Path(series.uri(0)), series.uri(1))
    assert latest_step(Storage(), series, MONDAY)[0] == 1


def test_a_step_whose_writer_died_before_it_was_proven_does_not_count(series: StepSeries) -> None:
    write(series, 1, OTHER)
    write(series, 2, OTHER)
    Path(series.uri(2) + ".manifest.json").unlink()
    claim = '{"requested_by": null, "claimed_at": "2026-01-01T00:00:00Z"}'
    Path(series.uri(2) + ".claim.json").write_text(claim)
    assert latest_step(Storage(), series, MONDAY)[0] == 1


def test_a_step_that_is_proven_counts_though_its_writer_died_before_it_removed_its_claim(series: StepSeries) -> None:
    class DiesLast(Storage):
        def delete(self, uri: str) -> None:
            raise KeyboardInterrupt(uri)  # as a kill would: nothing of the job runs after it

    write(series, 1, OTHER, DiesLast())
    assert Path(series.uri(1) + ".claim.json").exists()
    assert latest_step(Storage(), series, MONDAY)[0] == 1


def test_a_manifest_of_an_object_that_was_replaced_since_says_nothing_of_the_new_one(series: StepSeries) -> None:
    write(series, 1, MONDAY)
    Storage().upload(Path(series.uri(0)), series.uri(1))
    assert latest_step(Storage(), series, MONDAY)[0] == 1


def test_with_nothing_to_read_the_places_are_named(tmp_path: Path) -> None:
    series = StepSeries(f"{tmp_path}/none.jsonl", f"{tmp_path}/steps", "captions", "jsonl")
    with pytest.raises(
        JobError, match=rf"{tmp_path}/steps holds no complete step, and .*{tmp_path}/none.jsonl does not"
    ):
        latest_step(Storage(), series, MONDAY)
