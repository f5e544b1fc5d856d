"""Steps are named as DataFlow names them, and found again in the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_operator.errors import RequestError
from clip_operator.proof.standing import find_output
from clip_operator.steps import StepSeries, manifest_uri, part_name
from clip_operator.storage import ObjectInfo, Storage


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
    existing = StepSeries("", str(tmp_path), "captions", "jsonl").existing(Storage())
    assert list(existing.items()) == [(n, f"{tmp_path}/captions_step{n}.jsonl") for n in (10, 2, 1)]


def test_kept_rows_are_a_series_of_their_own(tmp_path: Path) -> None:
    series = StepSeries("", str(tmp_path), "captions", "jsonl")
    kept = StepSeries("", str(tmp_path), "captions_filtered", "jsonl")
    assert series.selection("filtered").uri(3) == kept.uri(3) == f"{tmp_path}/captions_filtered_step3.jsonl"
    Path(kept.uri(3)).touch()
    assert (list(series.existing(Storage())), list(kept.existing(Storage()))) == ([], [3])


def test_a_step_in_part_files_is_found_by_their_pattern_unless_there_is_one_file(tmp_path: Path) -> None:
    series = StepSeries("", str(tmp_path), "captions", "jsonl")
    for name in ("captions_step1/part-1.jsonl", "captions_step2/part-1.jsonl", "captions_step3/other.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "captions_step2.jsonl").touch()
    parts, file = f"{tmp_path}/captions_step1/part-*.jsonl", f"{tmp_path}/captions_step2.jsonl"
    assert series.existing(Storage()) == {2: file, 1: parts}
    assert [series.find(step, Storage()) for step in (1, 2)] == [parts, file]
    assert series.find(3, Storage()) == f"{tmp_path}/captions_step3.jsonl", "named in the message that it is not there"


def test_to_find_steps_nothing_is_listed_but_their_folder_and_part_files(tmp_path: Path) -> None:
    class Noting(Storage):
        def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
            listed.append(prefix)
            return super().list(prefix, start_after)

    listed: list[str] = []
    for name in ("images/1.png", "x_step1.jsonl", "x_step2/part-1.jsonl", "x_step2.resume/a/1.json", "x_step_no/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(StepSeries("", str(tmp_path), "x", "jsonl").existing(Noting())) == [2, 1]
    assert listed == [f"{tmp_path}/x_step2/part-"]


def test_what_belongs_to_an_output_and_is_no_data_stands_where_readers_of_the_data_pass_it_over() -> None:
    assert manifest_uri("s3://b/x_step1.jsonl") == "s3://b/x_step1.jsonl.manifest.json"
    assert manifest_uri("s3://b/x_step1/part-*.parquet") == "s3://b/x_step1.manifest.json"
    assert (
        manifest_uri("s3://b/x_step1/part-00001-of-00002.parquet")
        == "s3://b/x_step1/_part-00001-of-00002.parquet.manifest.json"
    )


def test_an_output_whose_name_has_a_star_is_one_object(tmp_path: Path) -> None:
    output = f"{tmp_path}/a*b.jsonl"
    assert manifest_uri(output) == f"{output}.manifest.json"
    Storage().write(b"{}\n", output)
    Storage().write(b"", f"{tmp_path}/a and b.jsonl")
    found = find_output(Storage(), output)
    assert found is not None
    assert (found.uri, found.size) == (output, 3)


@pytest.mark.parametrize(
    ("uri", "number"),
    [
        ("s3://b/x_step12.jsonl", 12),
        ("s3://b/x_step3/part-*.jsonl", 3),
        ("s3://b/x_step3/part-00001-of-00002.jsonl", 3),
        ("s3://b/x_step03.jsonl", None),
        ("s3://b/x_step3.csv", None),
        ("s3://b/x_step3.jsonl.manifest.json", None),
        ("s3://b/x_filtered_step3.jsonl", None),
    ],
)
def test_a_step_is_known_by_its_uri(uri: str, number: int | None) -> None:
    assert StepSeries("", "s3://b", "x", "jsonl").number(uri) == number


@pytest.mark.parametrize(("index", "of", "name"), [(2, 7, "00003-of-00007"), (99_999, 100_000, "100000-of-100000")])
def test_shards_are_called_so_that_they_sort_as_their_rows_do(index: int, of: int, name: str) -> None:
    assert part_name(index, of) == name


def test_a_folder_that_does_not_exist_has_no_steps(tmp_path: Path) -> None:
    assert StepSeries("", str(tmp_path / "none"), "captions", "jsonl").existing(Storage()) == {}
