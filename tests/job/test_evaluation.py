"""The job as a whole, on local files and a real S3 server: lossless, proven, all or nothing."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from clip_operator import model
from clip_operator.errors import Cancelled, ClipOperatorError, JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest, parse_manifest
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.storage import ObjectInfo, Storage, Unchanged
from tests.conftest import S3, SHAPES


@pytest.fixture
def data(shapes_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the demo data set that a test may change."""
    return shutil.copytree(shapes_dataset, tmp_path / "data")


def request(folder: Path | str, **fields: Any) -> EvaluationRequest:
    defaults = {"input": f"{folder}/captions.jsonl", "output": f"{folder}/scored_step1.jsonl", "model": SHAPES}
    return parse_request({**defaults, **fields})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_equal_plain_row_by_row_transformers_to_1e_5(data: Path) -> None:
    evaluate(request(data))
    folder = model.find_checkpoint(SHAPES, None, Storage()).path
    plain_model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    compared = 0
    for row in lines(data / "scored_step1.jsonl"):
        if row["clip_score"] is None:
            continue
        image = Image.open(data / row["image_path"]).convert("RGB")
        inputs = processor(
            text=[row["text"]], images=image, padding="max_length", truncation=True, max_length=32, return_tensors="pt"
        )
        with torch.no_grad():
            output = plain_model(**inputs)
        expected = (float((output.image_embeds * output.text_embeds).sum()) + 1) / 2
        assert row["clip_score"] == pytest.approx(expected, abs=1e-5)
        compared += 1
    assert compared == 60


def test_every_row_is_there_in_order_with_one_column_more(data: Path) -> None:
    manifest = evaluate(request(data, error_key="why"))
    before, after = lines(data / "captions.jsonl"), lines(data / "scored_step1.jsonl")
    assert [{k: v for k, v in row.items() if k not in ("clip_score", "why")} for row in after] == before
    assert {row["label"]: row["why"] for row in after if row["why"] is not None} == {
        "broken_image": "image_unreadable",
        "missing_image": "image_not_found",
        "empty_text": "text_empty",
        "null_text": "text_missing",
    }
    assert all((row["clip_score"] is None) == (row["why"] is not None) for row in after)
    assert manifest.rows.failures == {"image_not_found": 1, "image_unreadable": 1, "text_empty": 1, "text_missing": 1}


def test_rows_that_repeat_images_and_texts_get_the_scores_of_the_rows_they_repeat(data: Path) -> None:
    """More rows than a chunk holds, in another order every time."""
    rows = lines(data / "captions.jsonl")
    evaluate(request(data))
    expected = {row["id"]: row["clip_score"] for row in lines(data / "scored_step1.jsonl")}
    drawn = np.random.default_rng(5)
    many = [rows[i] for _ in range(12) for i in drawn.permutation(len(rows))]
    (data / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    manifest = evaluate(request(data, input=f"{data}/many.jsonl", output=f"{data}/many_step1.jsonl"))
    scored = lines(data / "many_step1.jsonl")
    assert [row["id"] for row in scored] == [row["id"] for row in many]
    for row in scored:
        assert row["clip_score"] == pytest.approx(expected[row["id"]], abs=1e-5)
    assert manifest.rows.failed == 12 * 4
    assert manifest.throughput is not None
    assert (manifest.throughput.images_encoded, manifest.throughput.images_reused) == (62, 11 * 62)
    assert manifest.throughput.texts_encoded == len({row["text"] for row in rows if (row["text"] or "").strip()})


def test_how_fast_it_was_and_what_it_waited_for_is_in_the_manifest_and_in_the_log(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        throughput = evaluate(request(data, batch_size=7)).throughput
    assert throughput is not None
    assert throughput.batch_size == 7
    assert throughput.rows_per_second == pytest.approx(64 / throughput.seconds, rel=0.01)
    assert set(throughput.time_shares) == {"read", "fetch", "decode", "encode", "write", "save"}
    assert sum(throughput.time_shares.values()) == pytest.approx(1, abs=0.001)
    encoded = f"{100 * throughput.time_shares['encode']:.0f} %"
    assert f"{throughput.rows_per_second:,.1f} rows/s, 7 images at a time. The model computed {encoded}" in caplog.text
    assert "Encoded 62 images and 62 texts; 0 rows repeated an earlier row's image, 0 its text" in caplog.text


def test_reduced_decoding_changes_scores_a_little_and_only_those_of_large_jpegs(data: Path) -> None:
    names = [f"images/{number:05}" for number in (0, 1, 2, 4, 5)]
    rows = [row for row in lines(data / "captions.jsonl") if row["image_path"].rpartition(".")[0] in names]
    for row in rows:
        with Image.open(data / row["image_path"]) as image:
            large = image.convert("RGB").resize((2000, 2000), Image.Resampling.BICUBIC)
        for suffix in ("jpg", "png"):
            large.save(data / f"{row['id']}.{suffix}", quality=90)
    many = [{**row, "image_path": f"{row['id']}.{suffix}"} for row in rows for suffix in ("jpg", "png")]
    (data / "large.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    scores = {}
    for decoding in ("full", "reduced"):
        evaluate(request(data, input=f"{data}/large.jsonl", output=f"{data}/{decoding}.jsonl", image_decoding=decoding))
        scores[decoding] = np.array([row["clip_score"] for row in lines(data / f"{decoding}.jsonl")])
    difference = np.abs(scores["full"] - scores["reduced"]).reshape(-1, 2)
    assert (difference[:, 0] > 0).all()
    assert difference[:, 0].max() < 1e-3
    assert (difference[:, 1] == 0).all()


def test_matching_captions_score_higher_than_wrong_ones(data: Path) -> None:
    evaluate(request(data))
    rows = [row for row in lines(data / "scored_step1.jsonl") if row["clip_score"] is not None]
    by_label = {label: [r["clip_score"] for r in rows if r["label"] == label] for label in ("match", "mismatch")}
    assert np.median(by_label["match"]) > max(by_label["mismatch"])


def as_csv(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def as_json(rows: list[dict[str, Any]], path: Path) -> None:
    path.write_text(json.dumps(rows, indent=1))


def as_jsonl_gz(rows: list[dict[str, Any]], path: Path) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def csv_scores(path: Path) -> list[float | None]:
    with path.open(newline="") as file:
        return [float(row["clip_score"]) if row["clip_score"] else None for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("suffix", "write", "scores"),
    [
        ("csv", as_csv, csv_scores),
        ("parquet", as_parquet, lambda path: pq.read_table(path)["clip_score"].to_pylist()),
        ("json", as_json, lambda path: [row["clip_score"] for row in json.loads(path.read_text())]),
        (
            "jsonl.gz",
            as_jsonl_gz,
            lambda path: [json.loads(line)["clip_score"] for line in gzip.decompress(path.read_bytes()).splitlines()],
        ),
    ],
)
def test_every_format_gets_the_same_scores(
    data: Path,
    suffix: str,
    write: Callable[[list[dict[str, Any]], Path], None],
    scores: Callable[[Path], list[float | None]],
) -> None:
    evaluate(request(data))
    expected = [row["clip_score"] for row in lines(data / "scored_step1.jsonl")]
    write(lines(data / "captions.jsonl"), data / f"captions.{suffix}")
    evaluate(request(data, input=f"{data}/captions.{suffix}", output=f"{data}/scored.{suffix}"))
    assert scores(data / f"scored.{suffix}") == expected


def test_image_bytes_in_parquet_score_as_the_files_do(data: Path) -> None:
    rows = lines(data / "captions.jsonl")
    content = [(data / r["image_path"]).read_bytes() if (data / r["image_path"]).exists() else None for r in rows]
    table = pa.table(
        {
            "bytes": pa.array(content, pa.binary()),
            "image": [{"bytes": c, "path": r["image_path"]} for c, r in zip(content, rows, strict=True)],
            "text": [r["text"] for r in rows],
        }
    )
    pq.write_table(table, data / "bytes.parquet")
    evaluate(request(data))
    expected = [row["clip_score"] for row in lines(data / "scored_step1.jsonl")]
    for column in ("bytes", "image"):
        output = data / f"{column}_scored.parquet"
        evaluate(request(data, input=f"{data}/bytes.parquet", output=str(output), input_image_key=column))
        scored = pq.read_table(output)
        assert scored["clip_score"].to_pylist() == expected
        assert scored.drop(["clip_score"]).equals(table)


def test_a_data_set_in_s3_is_scored_with_its_images_there(data: Path, s3: S3) -> None:
    evaluate(request(data))
    folder = s3.put_folder(data, "shapes")
    manifest = evaluate(request(folder, output=f"{folder}/steps/captions_step1.jsonl"), s3.storage)
    assert s3.get(manifest.output.uri) == (data / "scored_step1.jsonl").read_bytes()
    keys = s3.object_keys()
    assert sorted(key for key in keys if key.startswith("shapes/steps")) == [
        "shapes/steps/captions_step1.jsonl",
        "shapes/steps/captions_step1.jsonl.manifest.json",
        "shapes/steps/captions_step1.jsonl.report.html",
        "shapes/steps/captions_step1.jsonl.samples.json",
        "shapes/steps/captions_step1.jsonl.worst-rows.csv",
    ]


def test_the_manifest_in_the_store_is_the_one_returned_and_says_how_the_scores_were_made(data: Path, s3: S3) -> None:
    folder = s3.put_folder(data, "shapes")
    manifest = evaluate(request(folder), s3.storage)
    assert parse_manifest(s3.get(f"{folder}/scored_step1.jsonl.manifest.json")) == manifest
    head = s3.client.head_object(Bucket=s3.bucket, Key="shapes/scored_step1.jsonl")
    assert (manifest.output.size, f'"{manifest.output.etag}"') == (head["ContentLength"], head["ETag"])
    assert manifest.output_columns == ["clip_score"]
    assert manifest.model.name == SHAPES
    assert manifest.model.image_processor == "CLIPImageProcessorPil"
    assert re.fullmatch("[0-9a-f]{64}", manifest.model.digest)
    assert manifest.device.name
    # Which build it is, as in 2.13.0+cu130, not every wheel's metadata tell.
    assert torch.__version__.startswith(manifest.libraries["torch"])
    scores = [json.loads(line)["clip_score"] for line in s3.get(manifest.output.uri).splitlines()]
    present = [score for score in scores if score is not None]
    assert manifest.scores is not None
    assert manifest.scores.mean == pytest.approx(np.mean(present), abs=1e-6)
    assert manifest.scores.minimum == min(present)


def test_work_that_is_done_is_not_done_again(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = evaluate(request(data))
    written = (data / "scored_step1.jsonl").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        again = evaluate(request(data, batch_size=5))
    assert again == first
    assert (data / "scored_step1.jsonl").stat().st_mtime_ns == written
    assert "is complete already" in caplog.text


@pytest.mark.parametrize("resume_point_rows", [16, 4096])
def test_a_slow_store_makes_neither_the_disk_nor_the_model_look_slow(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, resume_point_rows: int
) -> None:
    """Each of its writes takes a minute. When the last comes, all rows are scored and written.

    How much of the others counts as saving hangs on what the model computes meanwhile.
    """
    real, spent = time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: real() + spent[0])

    class Slow(Storage):
        def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            spent[0] += 60
            return super().write(data, uri, only_if)

    with caplog.at_level(logging.INFO):
        throughput = evaluate(request(data, resume_point_rows=resume_point_rows), Slow()).throughput
    assert throughput is not None
    if resume_point_rows == 4096:
        assert throughput.seconds < 60
    else:
        assert throughput.seconds > 60
        assert throughput.time_shares["write"] + throughput.time_shares["read"] < 0.5
        assert "% for results to be saved" in caplog.text


def changed_input(data: Path) -> dict[str, Any]:
    with (data / "captions.jsonl").open("a") as file:
        file.write('{"image_path": "images/00000.png", "text": "a new row"}\n')
    return {}


def changed_request(data: Path) -> dict[str, Any]:
    return {"on_error": "zero"}


def changed_model(data: Path) -> dict[str, Any]:
    folder = shutil.copytree(model.find_checkpoint(SHAPES, None, Storage()).path, data / "model", dirs_exist_ok=True)
    return {"model": str(folder)}


def lost_output(data: Path) -> dict[str, Any]:
    (data / "scored_step1.jsonl").unlink()
    return {}


def forced(data: Path) -> dict[str, Any]:
    return {"overwrite": True}


@pytest.mark.parametrize("change", [changed_input, changed_request, changed_model, lost_output, forced])
def test_work_is_done_again_when_anything_that_decides_it_changed(
    data: Path, change: Callable[[Path], dict[str, Any]]
) -> None:
    first = evaluate(request(data))
    again = evaluate(request(data, **change(data)))
    assert again.started_at > first.finished_at
    assert again.rows.total == len(lines(data / "scored_step1.jsonl")) == len(lines(data / "captions.jsonl"))


@pytest.mark.usefixtures("drivers")
def test_what_is_known_of_an_input_without_a_version_counts_for_nothing_later(data: Path) -> None:
    storage, text = Storage(), (data / "captions.jsonl").read_bytes()
    asked = {"input": "silent://data/captions.jsonl", "image_root": str(data)}
    storage.write(text, asked["input"])
    with pytest.raises(JobError):
        evaluate(request(data, **asked, max_error_rate=0))  # scored, and not written
    first = evaluate(request(data, **asked))
    storage.write(text.replace(b"red", b"tan"), asked["input"])
    again = evaluate(request(data, **asked, rescore="failed"))
    assert (first.rows.resumed, again.rows.resumed) == (0, 0)
    assert "tan" in (data / "scored_step1.jsonl").read_text()


@pytest.mark.usefixtures("drivers")
def test_nothing_is_written_where_nothing_could_be_proved(data: Path) -> None:
    with pytest.raises(JobError, match=r"silent://data/out\.jsonl tells no versions apart.*another store"):
        evaluate(request(data, output="silent://data/out.jsonl"))
    assert list(Storage().list("silent://data/")) == []


def test_the_same_model_folder_with_other_weights_is_another_model(data: Path) -> None:
    folder = changed_model(data)["model"]
    first = evaluate(request(data, model=folder))
    tampered = CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        tampered.text_projection.weight.neg_()
    tampered.save_pretrained(folder)
    again = evaluate(request(data, model=folder))
    assert again.model.digest != first.model.digest
    assert again.scores is not None
    assert first.scores is not None
    assert again.scores.mean == pytest.approx(1 - first.scores.mean, abs=1e-5)


def test_an_output_that_something_else_wrote_is_not_overwritten_unasked(data: Path) -> None:
    (data / "scored_step1.jsonl").write_text("precious\n")
    with pytest.raises(JobError, match=r"exists already and is not this job's.*overwrite=True"):
        evaluate(request(data))
    assert (data / "scored_step1.jsonl").read_text() == "precious\n"
    evaluate(request(data, overwrite=True))
    assert len(lines(data / "scored_step1.jsonl")) == 64


def requester(**fields: Any) -> dict[str, Any]:
    return {"dag_id": "curate", "run_id": "monday", "task_id": "score", **fields}


def test_the_same_task_of_a_later_run_replaces_its_own_stale_output(data: Path) -> None:
    evaluate(request(data, requested_by=requester()))
    changed_input(data)
    assert evaluate(request(data, requested_by=requester(run_id="tuesday"))).rows.total == 65


def test_a_task_that_finds_its_work_done_says_so_in_the_manifest_and_nowhere_else(data: Path) -> None:
    first = evaluate(request(data, requested_by=requester()))
    written = (data / "scored_step1.jsonl").stat().st_mtime_ns
    monday, tuesday = (request(data, requested_by=requester(run_id=run)) for run in ("monday", "tuesday"))
    assert first.answers(monday)
    assert not first.answers(tuesday)
    evaluate(tuesday)
    manifest = proof(Storage(), monday.output)
    assert manifest is not None
    assert manifest.answers(monday)
    assert manifest.answers(tuesday)
    assert not manifest.answers(tuesday.model_copy(update={"on_error": "zero"}))
    assert manifest.confirmed_at is not None
    assert manifest.published_at == manifest.confirmed_at > first.published_at == first.finished_at
    assert manifest.model_copy(update={"confirmed_by": None, "confirmed_at": None}) == first
    assert (data / "scored_step1.jsonl").stat().st_mtime_ns == written


def test_another_tasks_output_is_protected_and_its_writer_is_named(data: Path) -> None:
    evaluate(request(data, requested_by=requester()))
    changed_input(data)
    with pytest.raises(JobError, match="task 'score' of DAG 'curate' wrote it"):
        evaluate(request(data, requested_by=requester(task_id="other")))


def test_a_claim_of_ones_own_does_not_make_another_tasks_proven_output_ones_own(data: Path) -> None:
    evaluate(request(data, requested_by=requester()))
    claim = {"requested_by": requester(task_id="other"), "claimed_at": "2026-01-01T00:00:00Z"}
    (data / "scored_step1.jsonl.claim.json").write_text(json.dumps(claim))  # left by a try that was killed
    with pytest.raises(JobError, match="task 'score' of DAG 'curate' wrote it"):
        evaluate(request(data, requested_by=requester(task_id="other"), on_error="zero"))


def test_an_output_that_the_command_line_wrote_is_protected_from_a_task(data: Path) -> None:
    evaluate(request(data))
    changed_input(data)
    with pytest.raises(JobError, match="it was written outside Airflow"):
        evaluate(request(data, requested_by=requester()))


def test_an_output_whose_writer_died_before_the_manifest_is_the_next_trys_own(data: Path) -> None:
    class DiesBeforeManifest(Storage):
        def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            if uri.endswith(".manifest.json"):
                raise KeyboardInterrupt  # as a kill would: nothing of the job runs after it
            return super().write(data, uri, only_if)

        def delete(self, uri: str) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        evaluate(request(data), DiesBeforeManifest())
    assert (data / "scored_step1.jsonl").exists()
    assert not (data / "scored_step1.jsonl.manifest.json").exists()
    evaluate(request(data))
    assert (data / "scored_step1.jsonl.manifest.json").exists()
    assert not (data / "scored_step1.jsonl.claim.json").exists()


def test_a_stopped_job_writes_nothing(data: Path) -> None:
    stop = threading.Event()
    stop.set()
    before = sorted(data.iterdir())
    with pytest.raises(Cancelled):
        evaluate(request(data), stop=stop)
    assert sorted(data.iterdir()) == before


def test_on_error_zero_gives_zero_and_leaves_the_statistics_alone(data: Path) -> None:
    with_null = evaluate(request(data))
    with_zero = evaluate(request(data, output=f"{data}/zero.jsonl", on_error="zero"))
    assert [row["clip_score"] for row in lines(data / "zero.jsonl")].count(0.0) == 4
    assert with_zero.scores == with_null.scores
    assert with_zero.rows == with_null.rows


def test_on_error_fail_names_the_row_and_writes_nothing(data: Path) -> None:
    with pytest.raises(JobError, match="row 14 cannot be scored, and on_error is 'fail': image_unreadable"):
        evaluate(request(data, on_error="fail"))
    assert not list(data.glob("scored*"))


def test_a_job_in_which_no_row_can_be_scored_fails_and_writes_nothing(data: Path) -> None:
    for path in (data / "images").iterdir():
        path.write_bytes(b"\x89PNG, but no image")
    message = r"none of the 64 rows could be scored \(image_unreadable: 61, image_not_found: 1, text_"
    with pytest.raises(JobError, match=message) as error:
        evaluate(request(data))
    assert f"relative image paths start at {data}" in str(error.value)
    assert not list(data.glob("scored*"))


def test_the_first_failures_of_each_class_are_logged_and_the_rest_counted(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in list((data / "images").iterdir())[:10]:
        path.unlink()
    evaluate(request(data, max_error_rate=0.5))
    reported = [r.message for r in caplog.records if "image_not_found" in r.message and r.message.startswith("Row")]
    assert len(reported) == 3
    assert reported[-1].endswith("further ones are only counted")


def test_too_many_failures_end_the_job_after_the_first_thousands_of_rows(data: Path) -> None:
    rows = lines(data / "captions.jsonl")
    good = [row for row in rows if row["label"] == "match"]
    many = [{**good[number % len(good)], "text": f"a circle, {number}"} for number in range(20_000)]
    for row in many[:4000:5]:
        row["image_path"] = "nowhere.png"
    (data / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    message = r"800 of the first 4,096 rows \(19\.5 %\), more than the 10 % of max_error_rate"
    with pytest.raises(JobError, match=message):
        evaluate(request(data, input=f"{data}/many.jsonl", output=f"{data}/many_step1.jsonl"))
    assert [path.name for path in data.glob("many_step1*")] == ["many_step1.jsonl.resume"]


def test_a_column_that_is_there_already_is_replaced_only_if_asked(data: Path) -> None:
    evaluate(request(data))
    twice = {
        "input": f"{data}/scored_step1.jsonl",
        "output": f"{data}/scored_step2.jsonl",
        "input_text_key": "alt_text",
    }
    with pytest.raises(JobError, match=r"has a column 'clip_score' already; choose another output_key"):
        evaluate(request(data, **twice))
    evaluate(request(data, **twice, overwrite=True))
    first, second = lines(data / "scored_step1.jsonl"), lines(data / "scored_step2.jsonl")
    assert [list(row) for row in first] == [list(row) for row in second]
    assert [row["clip_score"] for row in first] != [row["clip_score"] for row in second]


BAD_INPUT: list[tuple[str, bytes, dict[str, Any], str]] = [
    (
        "captions.jsonl",
        b'{"image_path": "a.png", "txt": "a"}\n',
        {},
        "no column 'text'; its columns are 'image_path', 'txt'",
    ),
    (
        "captions.csv",
        b"img;text\na.png;a\n",
        {"input": "captions.csv", "output": "out.csv"},
        "its 1 columns have other names.*Is ';' its delimiter",
    ),
    ("captions.jsonl", b'{"image_path": "a.png", "text": "a"}\n{"image_pa', {}, "line 2 is not valid JSON"),
    ("captions.jsonl", b'[\n{"image_path": "a.png", "text": "a"}]', {}, "line 1 .*name it .json"),
    ("captions.jsonl", b"\xff\xfe{}\n", {}, "line 1.*UTF-8"),
    ("captions.jsonl", b"\x89PNG\r\n\x1a\n", {}, "line 1"),
    ("captions.json", b'{"a": 1}', {"input": "captions.json", "output": "out.json"}, "no column"),
    ("captions.parquet", b"not parquet", {"input": "captions.parquet", "output": "o.parquet"}, "(?i)parquet"),
    ("captions.jsonl.gz", b"not gzip", {"input": "captions.jsonl.gz", "output": "o.jsonl.gz"}, "(?i)gzip"),
    ("captions.pkl", b"\x80\x04.", {"input": "captions.pkl", "output": "o.jsonl"}, "(?i)pickle.*code"),
    ("captions.xlsx", b"PK", {"input": "captions.xlsx", "output": "o.jsonl"}, "jsonl"),
    ("captions.parquet", b"PAR1", {"input": "captions.parquet", "output": "o.csv"}, "parquet"),
]


@pytest.mark.parametrize(("name", "content", "fields", "message"), BAD_INPUT)
def test_bad_input_is_refused_in_words_before_anything_is_scored(
    tmp_path: Path, name: str, content: bytes, fields: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ClipOperatorError, match=f"(?s){message}"):
        evaluate(request(".", **fields))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_malformed_row_at_the_very_end_stops_the_job_before_anything_is_scored(data: Path) -> None:
    with (data / "captions.jsonl").open("a") as file:
        file.write('{"image_path": "images/00000.png" "text": "comma lost"}\n')
    with pytest.raises(JobError, match=r"line 65 is not valid JSON .*character 35"):
        evaluate(request(data))
    assert not list(data.glob("scored*"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.jsonl", b"", b""),
        ("empty.json", b"[]", b"[]"),
        ("empty.csv", b"image_path,text\n", b"image_path,text,clip_score\n"),
    ],
)
def test_an_empty_input_gives_an_empty_output_with_the_column(
    tmp_path: Path, name: str, content: bytes, expected: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    manifest = evaluate(request(tmp_path, input=f"{tmp_path}/{name}", output=f"{tmp_path}/out_{name}"))
    assert (tmp_path / f"out_{name}").read_bytes() == expected
    assert (manifest.rows.total, manifest.scores) == (0, None)


def test_an_empty_parquet_file_keeps_its_schema(tmp_path: Path) -> None:
    schema = pa.schema([("image_path", pa.string()), ("text", pa.large_string())])
    pq.write_table(schema.empty_table(), tmp_path / "empty.parquet")
    evaluate(request(tmp_path, input=f"{tmp_path}/empty.parquet", output=f"{tmp_path}/out.parquet"))
    assert pq.read_schema(tmp_path / "out.parquet") == schema.append(pa.field("clip_score", pa.float64()))


def test_a_missing_input_is_named(tmp_path: Path, s3: S3) -> None:
    with pytest.raises(JobError, match=f"{tmp_path}/captions.jsonl does not exist"):
        evaluate(request(tmp_path))
    with pytest.raises(JobError, match="the bucket 'no-such-bucket' does not exist"):
        evaluate(request("s3://no-such-bucket/data"), s3.storage)


def test_an_output_bucket_that_does_not_exist_is_told_before_anything_is_scored(data: Path, s3: S3) -> None:
    with pytest.raises(JobError, match="the bucket 'no-such-bucket' does not exist"):
        evaluate(request(data, output="s3://no-such-bucket/out.jsonl"), s3.storage)


def test_an_unknown_model_says_which_places_were_tried(data: Path) -> None:
    with pytest.raises(
        JobError, match=r"'acme/unknown' not found; tried the local folder .*acme/unknown .*hub .*HF_HUB_OFFLINE"
    ):
        evaluate(request(data, model="acme/unknown"))


def test_the_worker_s_disk_is_out_of_reach_for_a_data_set_in_s3(data: Path, s3: S3, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    shutil.copy(data / "images" / "00000.png", secret)
    good = s3.put("d/images/good.png", secret.read_bytes())
    rows = [str(secret), f"file://{secret}", "../../../../../../" + str(secret), "images/good.png", good]
    text = "".join(json.dumps({"image_path": path, "text": "a green dot"}) + "\n" for path in rows)
    s3.put("d/captions.jsonl", text.encode())
    manifest = evaluate(request(f"s3://{s3.bucket}/d", error_key="why", max_error_rate=1), s3.storage)
    why = [json.loads(line)["why"] for line in s3.get(manifest.output.uri).splitlines()]
    assert why == ["image_forbidden"] * 3 + [None] * 2


def test_long_texts_are_cut_as_the_model_does_and_counted(tmp_path: Path, shapes_dataset: Path) -> None:
    shutil.copytree(shapes_dataset / "images", tmp_path / "images")
    texts = ["a green dot", "a green dot " * 100]
    rows = [{"image_path": "images/00000.png", "text": text} for text in texts]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest: EvaluationManifest = evaluate(request(tmp_path))
    assert manifest.rows.truncated_texts == 1
    assert manifest.rows.scored == 2


def test_a_row_that_names_a_bucket_that_the_request_does_not_is_one_bad_row(data: Path, s3: S3) -> None:
    folder = s3.put_folder(data, "shapes")
    elsewhere = ["s3://no-such-bucket/a.png", "s3://not..a.bucket/a.png", f"s3://{s3.bucket}/shapes/images/00000.png"]
    text = "".join(json.dumps({"image_path": uri, "text": "a green dot"}) + "\n" for uri in elsewhere)
    s3.put("shapes/captions.jsonl", text.encode())
    manifest = evaluate(request(folder, max_error_rate=1), s3.storage)
    assert (manifest.rows.scored, manifest.rows.failures) == (1, {"image_forbidden": 2})


def test_an_image_root_in_a_bucket_that_does_not_exist_is_the_jobs_error(data: Path, s3: S3) -> None:
    with pytest.raises(JobError, match="the bucket 'no-such-bucket' does not exist"):
        evaluate(request(data, image_root="s3://no-such-bucket/images"), s3.storage)
    assert not list(data.glob("scored*"))
