"""Photographs that are stored on their side: scored so, and told of, or turned upright first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from transformers import CLIPModel, CLIPProcessor

from clip_operator import model
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import Storage
from tests.conftest import SHAPES

TEXTS = ["a blue square", "a red circle above a green one", "a yellow ring"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Twelve rows of three pictures, with every orientation and in formats that tell it, and one file of the plain."""
    rows = []
    for number in range(12):
        picture = Image.new("RGB", (90, 60), "white")
        picture.paste(("blue", "red", "gold")[number % 3], (10, 5, 50, 30 + number))
        exif = Image.Exif()
        if number < 8:
            exif[0x0112] = number + 1
        kind = ("jpg", "png", "webp", "avif")[number // 2 % 4]
        picture.save(tmp_path / f"{number}.{kind}", exif=exif, quality=90)
        rows.append({"image_path": f"{number}.{kind}", "text": TEXTS[number % 3]})
    (tmp_path / "photographs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def request(folder: Path, name: str = "scored", **fields: Any) -> EvaluationRequest:
    places = {"input": f"{folder}/photographs.jsonl", "output": f"{folder}/{name}.jsonl"}
    return parse_request({**places, "model": SHAPES, **fields})


def scores(folder: Path, name: str = "scored") -> list[float]:
    return [json.loads(line)["clip_score"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def plain_scores(folder: Path, *, upright: bool) -> list[float]:
    checkpoint = model.find_checkpoint(SHAPES, None, Storage()).path
    plain_model, processor = CLIPModel.from_pretrained(checkpoint).eval(), CLIPProcessor.from_pretrained(checkpoint)
    expected = []
    for line in (folder / "photographs.jsonl").read_text().splitlines():
        row = json.loads(line)
        image = Image.open(folder / row["image_path"])
        inputs = processor(
            text=[row["text"]],
            images=(ImageOps.exif_transpose(image) if upright else image).convert("RGB"),
            padding="max_length",
            truncation=True,
            max_length=32,
            return_tensors="pt",
        )
        with torch.no_grad():
            output = plain_model(**inputs)
        expected.append((float((output.image_embeds * output.text_embeds).sum()) + 1) / 2)
    return expected


@pytest.mark.parametrize(("orientation", "unturned"), [("exif", 0), ("stored", 7), (None, 7)])
def test_scores_equal_plain_transformers_on_the_image_as_it_is_asked_for(
    photographs: Path, orientation: str | None, unturned: int, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = evaluate(request(photographs, image_orientation=orientation))
    assert scores(photographs) == pytest.approx(plain_scores(photographs, upright=orientation == "exif"), abs=1e-5)
    assert manifest.rows.unturned_images == unturned
    assert manifest.request.image_orientation == (orientation or "stored")
    told = "7 images are to be turned, as their EXIF says, and were scored as they are stored"
    page = (photographs / "scored.jsonl.report.html").read_text()
    assert [told in caplog.text, told in page] == 2 * [bool(unturned)]


def test_the_two_ways_differ(photographs: Path) -> None:
    turned, stored = (plain_scores(photographs, upright=upright) for upright in (True, False))
    assert max(abs(one - other) for one, other in zip(turned, stored, strict=True)) > 0.01


def test_neither_way_takes_over_what_the_other_has_scored(photographs: Path) -> None:
    evaluate(request(photographs, reuse=f"{photographs}/store"))
    turned = evaluate(request(photographs, reuse=f"{photographs}/store", image_orientation="exif", rescore="failed"))
    assert (turned.rows.resumed, turned.rows.reused) == (0, 0)
    assert scores(photographs) == pytest.approx(plain_scores(photographs, upright=True), abs=1e-5)


def test_rows_whose_scores_are_taken_over_are_counted_too(photographs: Path) -> None:
    """From the score store, from the output that is rescored, and from resume points of a try that failed."""
    store = f"{photographs}/store"
    evaluate(request(photographs, reuse=store))
    reused = evaluate(request(photographs, "other", reuse=store))
    assert (reused.rows.reused, reused.rows.unturned_images) == (12, 7)
    rescored = evaluate(request(photographs, rescore="failed", max_image_bytes=1 << 20))
    assert (rescored.rows.resumed, rescored.rows.unturned_images) == (12, 7)
    left = photographs / "9.jpg"
    left.rename(photographs / "away.jpg")
    with pytest.raises(Exception, match="on_error is 'fail'"):
        evaluate(request(photographs, "third", on_error="fail", resume_point_rows=4))
    (photographs / "away.jpg").rename(left)
    resumed = evaluate(request(photographs, "third", on_error="fail", resume_point_rows=4))
    assert (resumed.rows.resumed, resumed.rows.unturned_images) == (8, 7)


def test_the_shards_of_a_step_count_together(photographs: Path) -> None:
    storage, wanted = Storage(), request(photographs)
    plan = plan_shards(wanted, storage, shards=2)
    for name in plan.names:
        evaluate(plan.shard_request(name, None), storage)
    merged: EvaluationManifest = merge_shards(plan.uri, storage, None)
    assert merged.rows.unturned_images == 7


def test_a_hugging_face_data_set_is_upright_unless_it_is_told_otherwise() -> None:
    plain = {"output": "s3://b/out.parquet"}
    assert parse_request({**plain, "input": " hf:org/photographs "}).upright
    assert not parse_request({**plain, "input": "hf:org/photographs", "image_orientation": "stored"}).upright
    assert not parse_request({**plain, "input": "s3://b/photographs.parquet"}).upright


def test_the_samples_of_the_report_are_turned_as_the_model_saw_them(photographs: Path) -> None:
    from clip_operator.images import ImageLoader, ImagePolicy
    from clip_operator.images.workers.pool import ImageWorkers

    images = ImageLoader(Storage(), ImagePolicy(str(photographs)))
    shapes = []
    for upright in (False, True):
        with ImageWorkers(images, Storage(), 30, most=1, upright=upright) as workers:
            small = photographs / f"small-{upright}.jpg"
            small.write_bytes(workers.thumbnail(images.locate("5.webp")))
            with Image.open(small) as image:
                shapes.append(image.size)
    assert shapes == [(90, 60), (60, 90)]
