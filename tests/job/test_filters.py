"""Filters: the rows that are kept are those of the plain definition, and the others are rejected, row by row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.job.second_pass import second_pass
from clip_operator.operators.latest_step import latest_step
from clip_operator.proof.manifest import EvaluationManifest, parse_manifest
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.resume import find_leftovers
from clip_operator.scoring import Tally
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.steps import StepSeries
from clip_operator.storage import ObjectInfo, Storage, Unchanged
from tests.conftest import SHAPES

SEGMENT = 16
ROWS = 64
PERCENTILE = "percentile"

Json = dict[str, Any]


@pytest.fixture
def captions(shapes_dataset: Path) -> Path:
    return shapes_dataset / "captions.jsonl"


def request(source: Path, folder: Path, ending: str = "jsonl", **fields: Any) -> EvaluationRequest:
    defaults = {
        "input": str(source),
        "output": f"{folder}/out_step1.{ending}",
        "filtered_output": f"{folder}/out_filtered_step1.{ending}",
        "rejected_output": f"{folder}/out_rejected_step1.{ending}",
        "model": SHAPES,
        "resume_point_rows": SEGMENT,
        "percentile_key": PERCENTILE,
    }
    return parse_request({**defaults, **fields})


def in_shards(work: EvaluationRequest) -> EvaluationManifest:
    storage = Storage()
    plan = plan_shards(work, storage, shards=3)
    assert len(plan.names) == 3
    for index in range(3):
        evaluate(plan.nth_request(index, None), storage)
    return merge_shards(plan.uri, storage, Requester(dag_id="d", run_id="r", task_id="merge"))


def plainly_kept(rows: list[Json], limits: Json, on_error: str = "null") -> list[bool]:
    """Tell which rows a filter keeps, by what it says."""
    scores = [None if on_error == "zero" and row["clip_score"] == 0 else row["clip_score"] for row in rows]
    scored = sorted((-score, number) for number, score in enumerate(scores) if score is not None)
    best = {number for _, number in scored[: math.ceil(round(limits.get("keep_top", 1) * len(scored), 9))]}
    return [
        score is not None
        and number in best
        and score >= limits.get("min_score", 0)
        and score <= limits.get("max_score", 1)
        and rows[number].get(PERCENTILE, 100) >= limits.get("min_percentile", 0)
        for number, score in enumerate(scores)
    ]


def assert_divided(folder: Path, limits: Json, manifest: EvaluationManifest, on_error: str = "null") -> None:
    """Assert that each line of the output is in one of the two steps, as it is, and in the one where it belongs."""
    lines = (folder / "out_step1.jsonl").read_bytes().splitlines(keepends=True)
    kept = plainly_kept([json.loads(line) for line in lines], limits, on_error)
    for name, is_wanted in (("filtered", True), ("rejected", False)):
        expected = [line for line, is_kept in zip(lines, kept, strict=True) if is_kept is is_wanted]
        assert (folder / f"out_{name}_step1.jsonl").read_bytes() == b"".join(expected)
    assert manifest.filtered is not None
    assert manifest.rejected is not None
    assert (manifest.filtered.rows, manifest.rejected.rows) == (sum(kept), len(kept) - sum(kept))
    assert manifest.filtered.row_filter.limits == limits


FILTERS: dict[str, Json] = {
    "the best": {"keep_top": 0.3},
    "typical": {"min_percentile": 95},
    "not too good": {"max_score": 0.6},
    "a band": {"min_score": 0.5, "max_score": 0.62},
    "all limits": {"min_score": 0.55, "max_score": 0.66, "min_percentile": 97, "keep_top": 0.5},
    "none": {"min_score": 0.99},
}


@pytest.mark.parametrize("limits", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("on_error", ["null", "zero"])
def test_every_row_is_kept_or_rejected_as_its_score_says(
    captions: Path, tmp_path: Path, limits: Json, on_error: str
) -> None:
    manifest = evaluate(request(captions, tmp_path, on_error=on_error, **limits))
    assert_divided(tmp_path, limits, manifest, on_error)
    assert manifest.rows.total == ROWS


SCORE = st.one_of(st.none(), st.integers(0, 8).map(lambda eighths: eighths / 8), st.floats(0, 1))
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "keep_top": st.integers(1, 100).map(lambda percent: percent / 100),
        "min_score": st.integers(0, 4).map(lambda eighths: eighths / 8),
        "max_score": st.integers(4, 8).map(lambda eighths: eighths / 8),
    },
).filter(bool)


@settings(
    derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(scores=st.lists(SCORE, max_size=60), limits=LIMITS, is_zero=st.booleans())
def test_whatever_the_scores_are_the_filter_is_its_plain_definition(
    tmp_path: Path, scores: list[float | None], limits: Json, is_zero: bool
) -> None:
    on_error = "zero" if is_zero else "null"
    rows = [{"n": n, "clip_score": 0.0 if score is None and is_zero else score} for n, score in enumerate(scores)]
    output = tmp_path / "table"
    output.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    work = request(tmp_path / "in.jsonl", tmp_path, on_error=on_error, percentile_key=None, **limits)
    filtered = second_pass(output, work, Tally()).filtered
    assert filtered is not None
    assert filtered.rejected is not None
    kept = plainly_kept(rows, limits, on_error)
    for selection, is_wanted in ((filtered.kept, True), (filtered.rejected, False)):
        expected = [row for row, is_kept in zip(rows, kept, strict=True) if is_kept is is_wanted]
        assert [json.loads(line) for line in selection.path.read_text().splitlines()] == expected
        assert selection.rows == len(expected)


@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz", "parquet"])
def test_shards_keep_and_reject_what_a_single_task_does(captions: Path, tmp_path: Path, ending: str) -> None:
    source = captions
    if ending == "parquet":
        source = tmp_path / "captions.parquet"
        rows = [json.loads(line) for line in captions.read_text().splitlines()]
        pq.write_table(pa.Table.from_pylist(rows), source, row_group_size=SEGMENT)
    alone, together = tmp_path / "alone", tmp_path / "together"
    fields: Json = {"keep_top": 0.4, "min_percentile": 90, "image_root": str(captions.parent)}
    single = evaluate(request(source, alone, ending, **fields))
    merged = in_shards(request(source, together, ending, **fields))
    assert single.filtered is not None
    assert merged.filtered is not None
    assert single.filtered.rows == 24, "the best 0.4 of 60 rows with a score"
    elsewhere = {"output": single.filtered.output}
    assert merged.filtered.model_copy(update=elsewhere) == single.filtered
    assert merged.rejected is not None
    assert merged.rejected.rows == 40
    for name in ("out_step1", "out_filtered_step1", "out_rejected_step1"):
        one, other = alone / f"{name}.{ending}", together / f"{name}.{ending}"
        if ending == "parquet":
            assert pq.read_table(other).equals(pq.read_table(one), check_metadata=True)
        else:
            assert other.read_bytes() == one.read_bytes()
    assert sorted(path.name for path in together.iterdir()) == sorted(path.name for path in alone.iterdir())


def test_a_repeated_order_finds_its_work_done_and_another_filter_makes_it_anew(captions: Path, tmp_path: Path) -> None:
    work = request(captions, tmp_path, keep_top=0.3)
    first = evaluate(work)
    assert evaluate(work) == first
    rejected = tmp_path / "out_rejected_step1.jsonl"
    before = rejected.read_bytes()
    rejected.unlink()
    evaluate(work)
    assert rejected.read_bytes() == before
    changes: tuple[Json, ...] = ({"keep_top": 0.4}, {"keep_top": 0.4, "max_score": 0.6})
    for change in changes:
        assert_divided(tmp_path, change, evaluate(request(captions, tmp_path, **change)))


def test_rejected_rows_that_another_wrote_are_not_replaced(captions: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "out_rejected_step1.jsonl"
    theirs.write_text("somebody's\n")
    with pytest.raises(JobError, match=r"out_rejected_step1.jsonl exists already and is not this job's"):
        evaluate(request(captions, tmp_path, keep_top=0.3))
    assert theirs.read_text() == "somebody's\n"
    assert not (tmp_path / "out_step1.jsonl").exists()


def test_rejected_rows_go_with_the_output_that_they_are_of(captions: Path, tmp_path: Path) -> None:
    rejected = StepSeries(str(captions), str(tmp_path), "out_rejected", "jsonl")
    evaluate(request(captions, tmp_path, keep_top=0.3))
    assert latest_step(Storage(), rejected, None) == (1, rejected.uri(1))
    manifest = evaluate(request(captions, tmp_path, keep_top=0.3, rejected_output=None))
    assert manifest.rejected is None
    assert not Path(rejected.uri(1)).exists()
    assert (tmp_path / "out_filtered_step1.jsonl").exists()


def test_rejected_rows_whose_writer_died_are_not_read_as_the_latest(captions: Path, tmp_path: Path) -> None:
    class DiesBeforeTheManifest(Storage):
        def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            if uri.endswith(".manifest.json"):
                raise KeyboardInterrupt(uri)
            return super().write(data, uri, only_if)

    rejected = StepSeries(str(captions), str(tmp_path), "out_rejected", "jsonl")
    work = request(captions, tmp_path, keep_top=0.3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(work, DiesBeforeTheManifest())
    assert Path(rejected.uri(1)).exists()
    assert latest_step(Storage(), rejected, None) == (0, str(captions))
    evaluate(work)
    assert latest_step(Storage(), rejected, None) == (1, rejected.uri(1))
    assert list(find_leftovers(Storage(), f"{tmp_path}/")) == []


def test_a_rescored_step_is_divided_anew(captions: Path, tmp_path: Path) -> None:
    evaluate(request(captions, tmp_path, keep_top=0.3))
    manifest = evaluate(request(captions, tmp_path, keep_top=0.5, rescore="failed"))
    assert_divided(tmp_path, {"keep_top": 0.5}, manifest)


def test_where_no_row_has_a_percentile_none_can_be_asked_for(captions: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text(next(line for line in captions.read_text().splitlines() if "images/00000" in line) + "\n")
    folder, root = tmp_path / "out", str(captions.parent)
    with pytest.raises(
        JobError, match=r"no row has the percentile that min_percentile asks for: .*Nothing was written"
    ):
        evaluate(request(one, folder, image_root=root, min_percentile=50, percentile_key=None))
    assert not list(folder.glob("*.jsonl"))


@pytest.fixture(scope="module")
def done(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """The manifest of a step that a filter has divided."""
    folder = tmp_path_factory.mktemp("done")
    limits: Json = {"min_score": "threshold", "keep_top": 0.5}
    written: Json = json.loads(evaluate(request(shapes_dataset / "captions.jsonl", folder, **limits)).model_dump_json())
    return written


def changed(manifest: Json, change: Callable[[Json], object]) -> EvaluationManifest | None:
    copied = json.loads(json.dumps(manifest))
    change(copied)
    return parse_manifest(json.dumps(copied).encode())


def test_a_manifest_from_before_there_were_other_limits_is_read(done: Json) -> None:
    def as_it_was(manifest: Json) -> None:
        manifest["request"] = {**manifest["request"], "min_score": 0.5}
        for name in ("keep_top", "max_score", "min_percentile", "rejected_output"):
            del manifest["request"][name]
        manifest["filtered"] = {"output": manifest["filtered"]["output"], "min_score": 0.5, "rows": 50}
        del manifest["rejected"]

    found = changed(done, as_it_was)
    assert found is not None
    assert found.filtered is not None
    assert str(found.filtered.row_filter) == "a score of 0.5000 or more"


FORGED: dict[str, Callable[[Json], object]] = {
    "other rejected rows": lambda manifest: manifest["rejected"]["output"].update(uri="/etc/hostname"),
    "no rejected rows": lambda manifest: manifest.update(rejected=None),
    "rejected rows of nothing": lambda manifest: manifest["request"].update(rejected_output=None),
    "more rows than there are": lambda manifest: manifest["filtered"].update(rows=61),
    "rows that do not add up": lambda manifest: manifest["rejected"].update(rows=1),
    "another share": lambda manifest: manifest["filtered"].update(keep_top=0.4),
    "a limit less": lambda manifest: manifest["filtered"].update(min_score=None),
    "a limit more": lambda manifest: manifest["filtered"].update(max_score=0.9),
    "a share beyond all": lambda manifest: manifest["filtered"].update(top_score=7),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_manifest_of_another_filter_than_was_asked_for_is_none(done: Json, forged: Callable[[Json], object]) -> None:
    assert changed(done, dict) is not None
    assert changed(done, forged) is None
