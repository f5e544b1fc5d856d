"""What is known of a row only when all are scored: its percentile, and whether it is among the kept ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError, RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.operators.latest_step import latest_step
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.resume import find_leftovers
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.steps import StepSeries
from clip_operator.storage import ObjectInfo, Storage, StorageError, Unchanged
from tests.conftest import S3, SHAPES

SEGMENT = 16


@pytest.fixture
def captions(shapes_dataset: Path) -> str:
    return f"{shapes_dataset}/captions.jsonl"


def request(input: str, folder: Path, output: str = "out_step1.jsonl", **fields: Any) -> EvaluationRequest:
    defaults = {"input": input, "output": f"{folder}/{output}", "model": SHAPES, "resume_point_rows": SEGMENT}
    return parse_request({**defaults, **fields})


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def in_shards(work: EvaluationRequest) -> EvaluationManifest:
    storage = Storage()
    plan = plan_shards(work, storage, shards=3)
    assert len(plan.names) == 3
    for index in range(3):
        evaluate(plan.nth_request(index, None), storage)
    return merge_shards(plan.uri, storage, Requester(dag_id="d", run_id="r", task_id="merge"))


def test_a_percentile_is_the_share_of_mismatched_pairs_that_score_lower(captions: str, tmp_path: Path) -> None:
    plain = evaluate(request(captions, tmp_path, "plain.jsonl"))
    manifest = evaluate(request(captions, tmp_path, percentile_key="percentile"))
    assert manifest.calibration == plain.calibration
    assert manifest.calibration is not None
    before, after = read(tmp_path / "plain.jsonl"), read(tmp_path / "out_step1.jsonl")
    assert [{k: v for k, v in row.items() if k != "percentile"} for row in after] == before
    assert [list(row)[-1] for row in after] == ["percentile"] * len(after)
    scored = sorted((row["clip_score"], row["percentile"]) for row in after if row["clip_score"] is not None)
    assert [row["percentile"] for row in after if row["clip_score"] is None] == [None] * (len(after) - len(scored))
    assert [percentile for _, percentile in scored] == sorted(percentile for _, percentile in scored)
    # What the manifest says of mismatched pairs, found again in the rows: their quantiles, and the false accept rate.
    quantiles = manifest.calibration.mismatched.quantiles
    for score, percentile in scored:
        if percentile < 4:
            assert score <= quantiles["p05"] + 1e-4
        if percentile > 51:
            assert score >= quantiles["p50"] - 1e-4
    beyond = [percentile for score, percentile in scored if score >= manifest.calibration.threshold]
    assert min(beyond) >= 100 * (1 - manifest.calibration.false_accept_rate) - 1e-3


@pytest.mark.parametrize("name", ["jsonl", "json", "csv.gz", "parquet"])
def test_shards_come_to_the_same_percentiles_and_the_same_filtered_step(
    captions: str, tmp_path: Path, name: str
) -> None:
    source = captions
    if not name.startswith("json"):  # conversions are not what this is about
        rows = read(Path(captions))
        source = f"{tmp_path}/captions.{name}"
        _write(Path(source), rows)
    alone, together = tmp_path / "alone", tmp_path / "together"
    fields = {"percentile_key": "percentile", "min_score": "threshold", "image_root": str(Path(captions).parent)}
    single = evaluate(request(source, alone, f"out.{name}", filtered_output=f"{alone}/kept.{name}", **fields))
    merged = in_shards(request(source, together, f"out.{name}", filtered_output=f"{together}/kept.{name}", **fields))
    assert single.filtered is not None
    assert merged.filtered is not None
    assert (merged.filtered.rows, merged.filtered.min_score) == (single.filtered.rows, single.filtered.min_score)
    assert merged.rows == single.rows
    assert merged.calibration == single.calibration
    for file in (f"out.{name}", f"kept.{name}"):
        if name == "parquet":
            assert pq.read_table(together / file).equals(pq.read_table(alone / file), check_metadata=True)
        else:
            assert (together / file).read_bytes() == (alone / file).read_bytes()
    assert sorted(path.name for path in together.iterdir() if path.name.startswith(("out", "kept"))) == sorted(
        path.name for path in alone.iterdir()
    )


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=SEGMENT)
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def test_the_filtered_step_holds_the_rows_with_the_score_and_over_as_they_stand_in_the_output(
    captions: str, tmp_path: Path
) -> None:
    kept = f"{tmp_path}/kept.jsonl"
    manifest = evaluate(request(captions, tmp_path, min_score=0.55, filtered_output=kept, on_error="zero"))
    lines = (tmp_path / "out_step1.jsonl").read_bytes().splitlines(keepends=True)
    expected = [line for line in lines if json.loads(line)["clip_score"] >= 0.55]
    assert 0 < len(expected) < len(lines)
    assert (tmp_path / "kept.jsonl").read_bytes() == b"".join(expected)
    assert manifest.filtered is not None
    assert (manifest.filtered.rows, manifest.filtered.min_score) == (len(expected), 0.55)
    assert manifest.filtered.output.uri == kept
    assert manifest.filtered.output.size == sum(map(len, expected))
    fields = {"min_score": 0, "filtered_output": f"{tmp_path}/all.jsonl", "on_error": "zero"}
    everything = evaluate(request(captions, tmp_path, "other.jsonl", **fields))
    assert everything.filtered is not None
    assert everything.filtered.rows == everything.rows.scored, "a row that got 0.0 has no score"


def test_the_suggested_threshold_divides_the_rows_as_the_manifest_says(
    captions: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = f"{tmp_path}/kept.jsonl"
    manifest = evaluate(request(captions, tmp_path, min_score="threshold", filtered_output=kept))
    assert manifest.calibration is not None
    assert manifest.filtered is not None
    assert manifest.filtered.min_score == manifest.calibration.threshold
    rejected = manifest.rows.scored - manifest.filtered.rows
    low, high = manifest.calibration.false_reject_interval
    assert low <= rejected / manifest.rows.scored <= high
    assert "min_score is the threshold of 60 different images" in caplog.text


def test_where_no_threshold_can_be_suggested_nothing_is_written(
    captions: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = next(line for line in Path(captions).read_text().splitlines() if '"images/00000' in line)
    one = tmp_path / "one.jsonl"
    one.write_text(row + "\n")
    root = str(Path(captions).parent)
    kept = f"{tmp_path}/out/kept.jsonl"
    with pytest.raises(JobError, match=r"min_score is 'threshold', and none can be suggested.*Nothing was written"):
        evaluate(request(str(one), tmp_path / "out", image_root=root, min_score="threshold", filtered_output=kept))
    assert not list((tmp_path / "out").glob("*.jsonl"))
    with caplog.at_level(logging.WARNING):
        evaluate(request(str(one), tmp_path / "out", image_root=root, percentile_key="percentile"))
    assert "No row has a percentile" in caplog.text
    [only] = read(tmp_path / "out" / "out_step1.jsonl")
    assert only["percentile"] is None
    assert only["clip_score"] is not None


def test_a_filtered_step_that_another_wrote_is_not_replaced(captions: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.write_text("somebody's\n")
    work = request(captions, tmp_path, min_score=0.5, filtered_output=str(kept))
    with pytest.raises(JobError, match=r"kept.jsonl exists already and is not this job's"):
        evaluate(work)
    assert kept.read_text() == "somebody's\n"
    assert not (tmp_path / "out_step1.jsonl").exists()
    evaluate(work.model_copy(update={"overwrite": True}))
    higher = evaluate(request(captions, tmp_path, min_score=0.6, filtered_output=str(kept)))  # its own now
    assert higher.filtered is not None
    assert len(read(kept)) == higher.filtered.rows


def test_a_filtered_step_that_is_gone_is_made_again(captions: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    work = request(captions, tmp_path, min_score=0.5, filtered_output=str(kept))
    first = evaluate(work)
    assert evaluate(work) == first
    before = kept.read_bytes()
    kept.unlink()
    evaluate(work)
    assert kept.read_bytes() == before


def test_a_run_that_fails_behind_its_filtered_step_can_be_tried_again(shapes_dataset: Path, s3: S3) -> None:
    """The output has the same bytes, and in S3 the same version, as the one before: only the filtered step tells."""
    fields = {"output": f"s3://{s3.bucket}/out.jsonl", "filtered_output": f"s3://{s3.bucket}/kept.jsonl"}
    captions = f"{shapes_dataset}/captions.jsonl"

    def at_least(score: float) -> EvaluationRequest:
        return parse_request({"input": captions, "model": SHAPES, "min_score": score, **fields})

    evaluate(at_least(0.5), s3.storage)

    class Broken(Storage):
        def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            if uri.endswith(".report.html"):
                raise StorageError("the store is full")
            return super().write(data, uri, only_if)

    with pytest.raises(StorageError, match="the store is full"):
        evaluate(at_least(0.6), Broken(s3.storage.s3_access))
    again = evaluate(at_least(0.6), s3.storage)
    assert again.filtered is not None
    assert again.filtered.min_score == 0.6


def test_a_filtered_step_whose_writer_died_before_it_was_proved_is_not_read_as_the_latest(
    captions: str, tmp_path: Path
) -> None:
    class DiesBeforeTheManifest(Storage):
        def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            if uri.endswith(".manifest.json"):
                raise KeyboardInterrupt(uri)
            return super().write(data, uri, only_if)

    kept = StepSeries(captions, str(tmp_path), "out_filtered", "jsonl")
    work = request(captions, tmp_path, min_score=0.5, filtered_output=kept.uri(1))
    with pytest.raises(KeyboardInterrupt):
        evaluate(work, DiesBeforeTheManifest())
    assert Path(kept.uri(1)).exists()
    assert latest_step(Storage(), kept, None) == (0, captions)
    assert [left.output for left in find_leftovers(Storage(), f"{tmp_path}/")] == [kept.uri(1), work.output]
    evaluate(work)
    assert latest_step(Storage(), kept, None) == (1, kept.uri(1))
    assert list(find_leftovers(Storage(), f"{tmp_path}/")) == []


@pytest.mark.parametrize(
    ("evaluated", "elsewhere", "is_lost"),
    [(evaluate, None, False), (evaluate, "elsewhere.jsonl", False), (evaluate, None, True), (in_shards, None, False)],
    ids=["there is none now", "it is elsewhere now", "the output was removed", "there is none now, of shards"],
)
def test_the_filtered_step_of_an_output_goes_with_it(
    captions: str,
    tmp_path: Path,
    evaluated: Callable[[EvaluationRequest], EvaluationManifest],
    elsewhere: str | None,
    is_lost: bool,
) -> None:
    """Else it would stay beside one that it is not of, and be read as the latest."""
    kept = StepSeries(captions, str(tmp_path), "out_filtered", "jsonl")
    asker = {"dag_id": "d", "run_id": "r", "task_id": "t"}
    work = request(captions, tmp_path, min_score=0.6, filtered_output=kept.uri(1), requested_by=asker)
    evaluate(work)
    assert latest_step(Storage(), kept, None) == (1, kept.uri(1))
    if is_lost:
        Path(work.output).unlink()
    change: dict[str, Any] = (
        {} if elsewhere is None else {"min_score": 0.6, "filtered_output": f"{tmp_path}/{elsewhere}"}
    )
    manifest = evaluated(request(captions, tmp_path, requested_by=asker, **change))
    assert latest_step(Storage(), kept, None) == (0, captions)
    assert not Path(kept.uri(1)).exists()
    assert manifest.filtered is None or Path(manifest.filtered.output.uri).exists()


@pytest.mark.parametrize("reason", ["replaced", "in another folder"])
def test_a_filtered_step_that_is_not_surely_the_outputs_stays(
    captions: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    kept = tmp_path / "kept.jsonl" if reason == "replaced" else tmp_path / "folder" / "kept.jsonl"
    evaluate(request(captions, tmp_path, min_score=0.6, filtered_output=str(kept)))
    if reason == "replaced":
        kept.write_text("somebody's\n")
    before = kept.read_bytes()
    evaluate(request(captions, tmp_path))
    assert kept.read_bytes() == before
    assert (f"{kept} holds rows of an output that was replaced" in caplog.text) == (reason != "replaced")


def test_the_report_on_an_output_goes_with_it(captions: str, tmp_path: Path) -> None:
    evaluate(request(captions, tmp_path))
    evaluate(request(captions, tmp_path, overwrite=True, report=False))
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out_step1.jsonl", "out_step1.jsonl.manifest.json"]


def test_part_files_have_no_second_pass(captions: str, tmp_path: Path) -> None:
    work = request(captions, tmp_path, "out_step1/part-*.jsonl", percentile_key="percentile")
    with pytest.raises(RequestError, match="percentile_key: this needs all rows in one place"):
        plan_shards(work, Storage())
