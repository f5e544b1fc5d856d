"""What a manifest says of the scores of a model on a data set, and the columns that are read off a score."""

from __future__ import annotations

import json
import logging
import random
import shutil
import tempfile
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
from clip_operator.errors import JobError, RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import Calibration, EvaluationManifest
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import Storage
from tests.conftest import SHAPES
from tests.tries import Death, Tries

SEGMENT = 32


@pytest.fixture
def data(shapes_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the demo data set, five times over in another order and with other texts in between."""
    copy = shutil.copytree(shapes_dataset, tmp_path / "data")
    rows = read(copy / "captions.jsonl")
    drawn = random.Random(4)
    many = [{**row, "text": row["text"] and f"{row['text']} {number}"} for number in range(5) for row in rows]
    drawn.shuffle(many)
    (copy / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    return copy


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def request(folder: Path, **fields: Any) -> EvaluationRequest:
    defaults = {"input": f"{folder}/captions.jsonl", "output": f"{folder}/scored_step1.jsonl", "model": SHAPES}
    return parse_request({**defaults, **fields})


def calibration(manifest: EvaluationManifest) -> Calibration:
    assert manifest.calibration is not None
    return manifest.calibration


def test_the_calibration_is_that_of_plain_row_by_row_transformers(data: Path) -> None:
    """Every image is put beside every other text, and all is counted without histograms."""
    found = calibration(evaluate(request(data)))
    folder = model.find_checkpoint(SHAPES, None, Storage()).path
    plain_model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    images, texts = [], []
    for row in read(data / "scored_step1.jsonl"):
        if row["clip_score"] is None:
            continue
        image = Image.open(data / row["image_path"]).convert("RGB")
        inputs = processor(
            text=[row["text"]], images=image, padding="max_length", truncation=True, max_length=32, return_tensors="pt"
        )
        with torch.no_grad():
            output = plain_model(**inputs)
        images.append(output.image_embeds[0].double().numpy())
        texts.append(output.text_embeds[0].double().numpy())
    assert len(images) == 60
    scores = (np.array(images) @ np.array(texts).T + 1) / 2
    captions = [row["text"] for row in read(data / "scored_step1.jsonl") if row["clip_score"] is not None]
    matched = scores.diagonal()
    mismatched = scores[np.array(captions)[:, None] != np.array(captions)]
    assert found.images == 60
    assert found.mismatched.count == 60 * 14  # in four teams of 15
    assert found.mismatched.mean == pytest.approx(mismatched.mean(), abs=0.005)
    assert found.mismatched.minimum >= mismatched.min() - 1e-4
    assert found.auc == pytest.approx((matched[:, None] > mismatched).mean(), abs=0.005)
    kept = (matched >= found.threshold).mean()
    assert found.false_reject_interval[0] < 1 - kept < found.false_reject_interval[1]
    assert found.false_accept_rate == pytest.approx((mismatched >= found.threshold).mean(), abs=0.01)
    assert (sum(found.histograms.matched), sum(found.histograms.mismatched)) == (60, 840)


def test_it_tells_captions_of_the_images_from_those_of_others_and_says_so_in_the_log(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = calibration(evaluate(request(data)))
    assert found.auc > 0.75
    assert f"the AUC is {found.auc:.4f} ({found.auc_interval[0]:.3f} to {found.auc_interval[1]:.3f})" in caplog.text
    assert f"at the threshold {found.threshold:.4f}, " in caplog.text
    assert "All of it is uncertain, of 60 different images" in caplog.text


def test_shards_have_the_calibration_of_a_single_task(data: Path) -> None:
    fields = {"input": f"{data}/many.jsonl", "resume_point_rows": SEGMENT}
    single = evaluate(request(data, **fields))
    plan = plan_shards(request(data, **fields, output=f"{data}/sharded.jsonl"), Storage(), shards=4)
    for name in plan.names:
        evaluate(plan.shard_request(name, None), Storage())
    merged = merge_shards(plan.uri, Storage(), None)
    assert len(plan.names) == 4
    assert calibration(merged) == calibration(single)
    assert single.rows.scored == 300
    assert calibration(single).mismatched.count > 10 * 300


def test_a_run_that_goes_on_where_another_died_has_the_calibration_of_one_that_did_not(
    data: Path, tmp_path: Path
) -> None:
    rows = read(data / "many.jsonl")
    rows[5]["text"] = rows[40]["text"] = "a red circle. a blue square. " * 20
    (data / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:150]))
    fields = {"input": f"{data}/many.jsonl", "resume_point_rows": SEGMENT, "sentence_key": "worst"}
    whole = evaluate(request(data, **fields, output=f"{data}/whole.jsonl"))
    tries = Tries(Path(tempfile.mkdtemp(dir=tmp_path)))
    killed = tries.start(request(data, **fields), Death(5, before=True))  # after a claim and three resume points
    killed.join()
    resumed = evaluate(request(data, **fields))
    assert resumed.rows.resumed > 50
    assert calibration(resumed) == calibration(whole)
    assert (data / "scored_step1.jsonl").read_bytes() == (data / "whole.jsonl").read_bytes()
    assert sum(row["worst"] is not None for row in read(data / "whole.jsonl")) == 2


def test_shards_and_resumed_runs_that_fill_a_score_store_are_as_a_single_run_that_does(
    data: Path, tmp_path: Path
) -> None:
    """Every row is there twice, in other segments, so that the first half of the run could serve the second."""
    text = "".join((data / "many.jsonl").read_text().splitlines(keepends=True)[:96])
    (data / "many.jsonl").write_text(text * 2)
    fields = {"input": f"{data}/many.jsonl", "resume_point_rows": SEGMENT}
    single = evaluate(request(data, **fields, reuse=f"{tmp_path}/single"))
    sharded = request(data, **fields, reuse=f"{tmp_path}/sharded", output=f"{data}/sharded.jsonl")
    plan = plan_shards(sharded, Storage(), shards=3)
    for name in plan.names:
        evaluate(plan.shard_request(name, None), Storage())
    merged = merge_shards(plan.uri, Storage(), None)
    tries = Tries(Path(tempfile.mkdtemp(dir=tmp_path)))
    resumed = request(data, **fields, reuse=f"{tmp_path}/resumed", output=f"{data}/resumed.jsonl")
    tries.start(resumed, Death(9, before=True)).join()
    found = [single, merged, evaluate(resumed)]
    assert [manifest.rows.reused for manifest in found] == [0, 0, 0]
    assert found[2].rows.resumed > 0
    assert [calibration(manifest) for manifest in found] == [calibration(single)] * 3


def test_scores_from_the_store_bring_their_mismatched_pairs(data: Path, tmp_path: Path) -> None:
    fields = {"reuse": f"{tmp_path}/scores", "input": f"{data}/many.jsonl"}
    first = evaluate(request(data, **fields))
    again = evaluate(request(data, **fields, output=f"{data}/again.jsonl"))
    assert again.rows.reused == again.rows.scored == 300
    assert calibration(again) == calibration(first)


def test_where_rows_that_failed_are_tried_again_the_earlier_pairs_stay_and_all_else_is_that_of_all_rows(
    data: Path,
) -> None:
    """Half of the rows come late, and theirs are the captions that do not fit."""
    rows = read(data / "captions.jsonl")
    late = [row for row in rows if row["label"] == "mismatch"]
    for row in late:
        (data / row["image_path"]).rename(data / f"{row['id']}.away")
    first = evaluate(request(data, max_error_rate=0.5))
    for row in late:
        (data / f"{row['id']}.away").rename(data / row["image_path"])
    second, whole = evaluate(request(data, rescore="failed")), evaluate(request(data, output=f"{data}/whole.jsonl"))
    early, found, of_all = calibration(first), calibration(second), calibration(whole)
    assert (first.rows.scored, second.rows.scored, whole.rows.scored) == (44, 60, 60)
    assert found.mismatched.count == early.mismatched.count + 16 * 15
    assert early.auc > 0.95, "else there is nothing to see"
    assert found.auc == pytest.approx(of_all.auc, abs=0.02)
    assert found.false_reject_rate == pytest.approx(of_all.false_reject_rate, abs=0.05)
    assert early.false_reject_rate < found.false_reject_rate - 0.1
    assert found.images == of_all.images == 60


def test_a_row_that_is_tried_again_alone_brings_no_pair_and_the_rest_is_counted_anew(data: Path) -> None:
    image = next((data / "images").glob("00000.*"))
    image.rename(data / "away")
    first = evaluate(request(data))
    (data / "away").rename(image)
    second = evaluate(request(data, rescore="failed"))
    assert (first.rows.scored, second.rows.scored) == (59, 60)
    assert calibration(second).mismatched == calibration(first).mismatched
    assert sum(calibration(second).histograms.matched) == 60


@pytest.mark.parametrize(
    "same", [{"image_path": "images/00004.png"}, {"text": "a green circle"}], ids=["one image", "one text"]
)
def test_where_all_rows_share_an_image_or_a_text_there_is_no_calibration(data: Path, same: dict[str, str]) -> None:
    image = next((data / "images").glob("00004.*")).relative_to(data)
    rows = [{**row, **same} for row in read(data / "captions.jsonl") if row["label"] in ("match", "mismatch")]
    if "image_path" in same:
        rows = [{**row, "image_path": str(image)} for row in rows]
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:20]))
    manifest = evaluate(request(data))
    assert (manifest.rows.scored, manifest.calibration) == (20, None)


def test_a_single_row_has_no_calibration(data: Path) -> None:
    (data / "captions.jsonl").write_text(json.dumps(read(data / "captions.jsonl")[0]) + "\n")
    manifest = evaluate(request(data))
    assert (manifest.rows.scored, manifest.calibration) == (1, None)


# ------------------------------------------------------------------------------------------------------- the columns


@pytest.mark.parametrize("on_error", ["null", "zero"])
def test_the_cosine_and_clipscore_follow_from_the_score_and_are_null_where_there_is_none(
    data: Path, on_error: str
) -> None:
    keys = {"cosine_key": "cosine", "clipscore_key": "CLIPScore", "error_key": "why"}
    evaluate(request(data, **keys, on_error=on_error))
    rows = read(data / "scored_step1.jsonl")
    assert list(rows[0])[-4:] == ["clip_score", "why", "cosine", "CLIPScore"]
    for row in rows:
        if row["why"] is not None:
            assert (row["cosine"], row["CLIPScore"]) == (None, None)
            assert row["clip_score"] == (0.0 if on_error == "zero" else None)
            continue
        assert row["cosine"] == round(2 * row["clip_score"] - 1, 7)
        assert row["CLIPScore"] == pytest.approx(2.5 * max(row["cosine"], 0), abs=1e-7)
        assert len(repr(row["cosine"])) <= len("-0.1234567")
    assert sum(row["why"] is None for row in rows) == 60
    assert min(row["cosine"] for row in rows if row["why"] is None) < 0, "else the bound at zero is not seen"


def test_the_least_aligned_sentence_is_in_a_column_for_texts_that_were_cut(data: Path) -> None:
    """In Parquet, as strings and numbers; its score is that of a row with the sentence alone."""
    rows = [row for row in read(data / "captions.jsonl") if row["label"] == "match"][:6]
    parts = [rows[2]["text"], rows[3]["text"], "A caption in 図形, “quoted”, and\tso on"]
    rows[2]["text"] = f"{parts[0]}. {parts[1]}.\n{parts[2]}" + " on and on" * 20
    columns = {key: [row[key] for row in rows] for key in ("image_path", "text")}
    pq.write_table(pa.table(columns), data / "long.parquet")
    fields = {"input": f"{data}/long.parquet", "output": f"{data}/long_step1.parquet"}
    manifest = evaluate(request(data, **fields, sentence_key="worst"))
    assert manifest.rows.truncated_texts == 1
    scored = pq.read_table(data / "long_step1.parquet")
    assert scored.schema.field("worst").type in (pa.string(), pa.large_string())
    assert scored.schema.field("worst_score").type == pa.float64()
    assert [value is None for value in scored["worst"].to_pylist()] == [True, True, False, True, True, True]
    sentences = [f"{parts[0]}.", f"{parts[1]}.", parts[2] + " on and on" * 20]
    alone = {"image_path": [rows[2]["image_path"]] * 3, "text": sentences}
    pq.write_table(pa.table(alone), data / "alone.parquet")
    evaluate(request(data, input=f"{data}/alone.parquet", output=f"{data}/alone_step1.parquet"))
    scores = pq.read_table(data / "alone_step1.parquet")["clip_score"].to_pylist()
    assert scored["worst"][2].as_py() == sentences[scores.index(min(scores))]
    assert scored["worst_score"][2].as_py() == pytest.approx(min(scores), abs=1e-6)


def test_rows_whose_text_was_cut_are_not_taken_from_the_store_where_sentences_are_asked_for(
    data: Path, tmp_path: Path
) -> None:
    rows = [row for row in read(data / "captions.jsonl") if row["label"] == "match"][:10]
    rows[7]["text"] = "a red circle. a blue square. " * 20
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = evaluate(request(data, reuse=f"{tmp_path}/scores"))
    fields = {"reuse": f"{tmp_path}/scores", "sentence_key": "worst", "output": f"{data}/worst.jsonl"}
    again = evaluate(request(data, **fields))
    assert (first.rows.scored, again.rows.reused) == (10, 9)
    worst = [row["worst"] for row in read(data / "worst.jsonl")]
    assert worst[7] in ("a red circle.", "a blue square.")
    assert worst.count(None) == 9


def test_sentences_do_not_go_with_rescoring(data: Path) -> None:
    with pytest.raises(RequestError, match="do not tell which texts were cut, so it does not go with sentence_key"):
        request(data, rescore="failed", sentence_key="worst")


@pytest.mark.parametrize("key", ["cosine_key", "clipscore_key", "sentence_key"])
def test_a_column_that_the_input_has_already_is_not_replaced_unasked(data: Path, key: str) -> None:
    with pytest.raises(JobError, match="has a column 'label' already"):
        evaluate(request(data, **{key: "label"}))
    evaluate(request(data, **{key: "label"}, overwrite=True))
    assert read(data / "scored_step1.jsonl")[0]["label"] != "match"
