"""Steps are named as DataFlow names them, and found again in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_operator.errors import RequestError
from clip_operator.steps import StepSeries
from clip_operator.storage import Storage


def test_step_0_is_the_first_entry_and_later_ones_are_versioned() -> None:
    series = StepSeries("s3://data/raw/captions.csv", "s3://data/steps", "captions", "csv.gz")
    assert series.uri(0) == "s3://data/raw/captions.csv"
    assert series.uri(1) == "s3://data/steps/captions_step1.csv.gz"
    assert series.uri(12) == "s3://data/steps/captions_step12.csv.gz"


def test_a_slash_at_the_end_of_the_folder_changes_nothing() -> None:
    assert StepSeries("", "s3://data/steps/", "captions", "jsonl").uri(1) == "s3://data/steps/captions_step1.jsonl"


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(RequestError, match="step must be 0 or more, not -1"):
        StepSeries("first.jsonl", "steps", "captions", "jsonl").uri(-1)


def test_step_0_without_a_first_entry_is_refused() -> None:
    with pytest.raises(RequestError, match="first_entry_file_name"):
        StepSeries("", "steps", "captions", "jsonl").uri(0)


def test_existing_steps_are_found_by_number_and_nothing_else_is(tmp_path: Path) -> None:
    names = ["2", "10", "1", "1.jsonl.manifest", "03", "x", "-1"]
    for name in [f"captions_step{n}.jsonl" for n in names] + ["captions_step7.csv", "other_step8.jsonl"]:
        (tmp_path / name).touch()
    assert StepSeries("", str(tmp_path), "captions", "jsonl").existing(Storage()) == [10, 2, 1]


def test_a_folder_that_does_not_exist_has_no_steps(tmp_path: Path) -> None:
    assert StepSeries("", str(tmp_path / "none"), "captions", "jsonl").existing(Storage()) == []
