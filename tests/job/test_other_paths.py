"""Image paths that were written for another machine: read where it is asked for, and hinted at where it is not."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import JobError, Reason
from clip_operator.inputs.path_hints import PathHints
from clip_operator.job.evaluation import evaluate
from clip_operator.request import EvaluationRequest, parse_request
from tests.conftest import S3, SHAPES

Rewrite = Callable[[str], str]


@pytest.fixture
def data(shapes_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the demo data set that a test may change."""
    return shutil.copytree(shapes_dataset, tmp_path / "data")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written_elsewhere(data: Path, write: Rewrite) -> None:
    """Give all rows but the last three, of which one names no image here, other paths to the same images."""
    rows = rows_of(data / "captions.jsonl")
    for row in rows[:-3]:
        if row.get("image_path"):
            row["image_path"] = write(row["image_path"])
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def request(data: Path, **fields: Any) -> EvaluationRequest:
    places = {"input": f"{data}/captions.jsonl", "output": f"{data}/out_step1.jsonl", "model": SHAPES}
    return parse_request({**places, "error_key": "why", **fields})


def scores(data: Path) -> list[float | None]:
    return [row["clip_score"] for row in rows_of(data / "out_step1.jsonl")]


@pytest.fixture(scope="module")
def plain(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float | None]:
    """The scores of the data set with its own paths."""
    data = shutil.copytree(shapes_dataset, tmp_path_factory.mktemp("plain") / "data")
    evaluate(request(data))
    return scores(data)


WAYS: list[tuple[Rewrite, dict[str, Any], str]] = [
    (
        lambda path: f"/mnt/old/{path}",
        {"image_path_rewrite": {"/mnt/old/": "./"}},
        "Image paths that begin with /mnt/old/images/, where this job reads nothing: {n}. "
        "If their files stand elsewhere now, image_path_rewrite tells where",
    ),
    (
        lambda path: "D:\\sets\\" + path.replace("/", "\\"),
        {"image_path_rewrite": '{"D:\\\\sets\\\\": "./"}', "image_path_repairs": "backslashes"},
        "Image paths that begin with D:\\sets\\images\\, where this job reads nothing: {n}. ",
    ),
    (
        lambda path: path.replace("/", "\\"),
        {"image_path_repairs": ["backslashes"]},
        "Image paths with backslashes: {n}. image_path_repairs='backslashes' reads them as slashes",
    ),
    (
        lambda path: path.replace("i", "%69"),
        {"image_path_repairs": ["percent"]},
        "Image paths with escapes such as %20: {n}. image_path_repairs='percent' decodes them",
    ),
    (
        lambda path: f" {path}\t",
        {"image_path_repairs": ["blanks"]},
        "Image paths with blanks around them: {n}. image_path_repairs='blanks' takes these away",
    ),
]
IDS = ["absolute", "windows", "backslashes", "percent", "blanks"]


@pytest.mark.parametrize(("write", "asked", "_hint"), WAYS, ids=IDS)
def test_paths_that_are_mended_give_the_scores_of_the_plain_ones_and_stay_as_they_are(
    data: Path, plain: list[float | None], write: Rewrite, asked: dict[str, Any], _hint: str
) -> None:
    written_elsewhere(data, write)
    manifest = evaluate(request(data, **asked))
    assert scores(data) == plain
    kept = rows_of(data / "out_step1.jsonl")
    for row in kept:
        del row["clip_score"], row["why"]
    assert kept == rows_of(data / "captions.jsonl")
    assert manifest.request.image_path_rewrite or manifest.request.image_path_repairs


@pytest.mark.parametrize(("write", "_asked", "hint"), WAYS, ids=IDS)
def test_paths_that_are_not_are_hinted_at_wherever_the_job_ends(
    data: Path, caplog: pytest.LogCaptureFixture, write: Rewrite, _asked: dict[str, Any], hint: str
) -> None:
    written_elsewhere(data, write)
    rows = rows_of(data / "captions.jsonl")[:-3]
    named = sum(bool(row.get("image_path") and (row.get("text") or "").strip()) for row in rows)
    with caplog.at_level(logging.WARNING):
        evaluate(request(data, max_error_rate=1))
    assert hint.format(n=named) in caplog.text
    caplog.clear()
    with pytest.raises(JobError, match="too many rows have no score"):
        evaluate(request(data, output=f"{data}/other_step1.jsonl"))
    assert hint.format(n=named) in caplog.text


def test_of_several_images_the_one_that_cannot_be_had_is_hinted_at(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = rows_of(data / "captions.jsonl")[0]["image_path"]
    several = [[here, f"/mnt/old/{here}"], [here, "C:\\new\\a.png", "none.png"], [f"/mnt/old/{here}"], [here, here]]
    rows = [{"image_path": images, "text": ["a dot", "a star"]} for images in several]
    rows.append({"image_path": here, "text": ["a dot", "a star", ""]})
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.WARNING):
        evaluate(request(data, max_error_rate=1, aggregate="mean"))
    assert "Image paths that begin with /mnt/old/images/, where this job reads nothing: 2. " in caplog.text
    assert "Image paths with backslashes: 1. " in caplog.text


@pytest.mark.parametrize(("write", "_asked", "hint"), WAYS, ids=IDS)
def test_a_job_of_which_no_image_comes_ends_with_the_hint(
    data: Path, write: Rewrite, _asked: dict[str, Any], hint: str
) -> None:
    written_elsewhere(data, write)
    lines = (data / "captions.jsonl").read_text().splitlines(keepends=True)
    (data / "captions.jsonl").write_text("".join(lines[:16]))
    with pytest.raises(JobError) as refusal:
        evaluate(request(data))
    assert hint.partition("{n}")[0] in str(refusal.value)
    with pytest.raises(JobError, match="none of the 16 rows could be scored") as refusal:
        evaluate(request(data, max_error_rate=1))
    assert hint.partition("{n}")[0] in str(refusal.value)


def test_paths_lead_to_a_bucket_where_that_is_open(
    s3: S3, data: Path, plain: list[float | None], caplog: pytest.LogCaptureFixture
) -> None:
    s3.put_folder(data, "new")
    written_elsewhere(data, lambda path: f"/mnt/old/{path}")
    asked: dict[str, Any] = {"image_path_rewrite": {"/mnt/old/": f"s3://{s3.bucket}/new/"}}
    evaluate(request(data, **asked, max_error_rate=1), s3.storage)
    assert f"the bucket s3://{s3.bucket} is not open to this job" in caplog.text
    evaluate(request(data, **asked, image_buckets=[s3.bucket], overwrite=True), s3.storage)
    assert scores(data) == plain


def test_scores_of_other_images_are_not_kept_when_paths_are_rewritten(data: Path) -> None:
    """Of a row that has a score, too, the image may be another one then."""
    (first, second), *_ = [[row["image_path"] for row in rows_of(data / "captions.jsonl")[:2]]]
    before = evaluate(request(data))
    again = {"image_path_rewrite": {first: second}, "rescore": "failed", "overwrite": True}
    after = evaluate(request(data, **again))
    assert before.rows.scored == after.rows.scored
    assert after.rows.resumed == 0


def test_accents_are_composed_or_not(data: Path) -> None:
    picture = data / rows_of(data / "captions.jsonl")[0]["image_path"]
    for name in ("\u00e9.png", "e\u0301o.png"):
        shutil.copy(picture, data / name)
    names = ["e\u0301.png", "\u00e9o.png"]
    hints = {
        "nfc": "Image paths with accents as characters of their own: 1. image_path_repairs='nfc' composes them",
        "nfd": "Image paths with accents in composed characters: 1. If ",
    }
    rows = [{"image_path": name, "text": "a red square"} for name in names] * 2
    for form, works in (("nfc", [True, False]), ("nfd", [False, True])):
        (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
        evaluate(request(data, image_path_repairs=form, max_error_rate=1, overwrite=True))
        assert [score is not None for score in scores(data)] == [*works, works[0]]
    told = PathHints(request(data))
    for name in names:
        told.add(name, Reason.IMAGE_NOT_FOUND)
    for line, hint in zip(told.lines(), hints.values(), strict=True):
        assert line.startswith(hint)


def test_hints_take_little_memory_and_few_lines(data: Path) -> None:
    hints = PathHints(request(data))
    for number in range(2_000):
        hints.add({"bytes": None, "path": f"/{number}/" + "x/" * 5000}, Reason.IMAGE_FORBIDDEN)
        hints.add(f"/mnt/{number}/a.png", Reason.IMAGE_FORBIDDEN)
        for nothing in (None, b"x", 5, "data:,\\", f"/mnt/{number}/a.png"):
            hints.add(nothing, Reason.IMAGE_UNREADABLE)
    first, *others = hints.lines()
    assert first.startswith("Image paths that begin with /mnt/, where this job reads nothing: 2,000. ")
    assert len(others) == 2
    assert all(len(line) < 250 for line in others)
    assert len(pickle.dumps(hints)) < 1_000_000
