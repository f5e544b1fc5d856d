"""Rows with several images or several captions: one score of their pairs, or all of them."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator import FileStorage, ImageCLIPEvaluator
from clip_operator.errors import Cancelled, JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.resume import ResumePoints
from clip_operator.storage import Storage
from tests.conftest import SHAPES

IMAGES = tuple(
    f"images/{number:05}.{ending}" for number, ending in zip(range(8), itertools.cycle(("png", "jpg")), strict=False)
)
TEXTS = ("a green dot", "a red square", "a blue star on white", "two circles", "a purple box")
OF: dict[str, Callable[..., Any]] = {"mean": np.mean, "max": max, "min": min}


@pytest.fixture(scope="module")
def scores(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    """What each image scores with each text, in rows of their own."""
    folder = tmp_path_factory.mktemp("pairs")
    pairs = list(itertools.product(IMAGES, TEXTS))
    rows = [{"image_path": image, "text": text} for image, text in pairs]
    scored(rows, folder, shapes_dataset)
    return dict(zip(pairs, column(folder), strict=True))


@pytest.fixture
def data(shapes_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shapes_dataset, tmp_path / "data")


def job(folder: Path, root: Path, **fields: Any) -> EvaluationRequest:
    places = {"input": f"{folder}/rows.jsonl", "output": f"{folder}/scored.jsonl", "image_root": str(root)}
    return parse_request({**places, "model": SHAPES, "overwrite": True, "max_error_rate": 1, **fields})


def write(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def scored(rows: Sequence[dict[str, Any]], folder: Path, root: Path, **fields: Any) -> EvaluationManifest:
    write(rows, folder)
    return evaluate(job(folder, root, **fields))


def output(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "scored.jsonl").read_text().splitlines()]


def column(folder: Path, name: str = "clip_score") -> list[Any]:
    return [row[name] for row in output(folder)]


def cells(choices: Sequence[str]) -> st.SearchStrategy[str | list[str]]:
    return st.sampled_from(choices) | st.lists(st.sampled_from(choices), min_size=1, max_size=4)


def expected(row: dict[str, Any], scores: dict[tuple[str, str], float], aggregate: str) -> Any:
    images, texts = ([cell] if isinstance(cell, str) else cell for cell in (row["image_path"], row["text"]))
    pairs = [scores[pair] for pair in itertools.product(images, texts)]
    return pytest.approx(pairs if aggregate == "all" else float(OF[aggregate](pairs)), abs=1e-6)


@settings(derandomize=True, deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.fixed_dictionaries({"image_path": cells(IMAGES), "text": cells(TEXTS)}), min_size=1, max_size=12),
    aggregate=st.sampled_from([*OF, "all"]),
)
def test_a_row_gets_the_mean_the_highest_the_lowest_or_all_of_its_pairs(
    rows: list[dict[str, Any]],
    aggregate: str,
    scores: dict[tuple[str, str], float],
    shapes_dataset: Path,
    tmp_path: Path,
) -> None:
    manifest = scored(rows, tmp_path, shapes_dataset, aggregate=aggregate)
    assert column(tmp_path) == [expected(row, scores, aggregate) for row in rows]
    assert [{**row, "clip_score": None} for row in output(tmp_path)] == [{**row, "clip_score": None} for row in rows]
    assert manifest.scores is not None
    one_a_row = [np.mean(score) for score in column(tmp_path)]
    assert manifest.scores.mean == pytest.approx(np.mean(one_a_row), abs=1e-6)


def test_a_list_of_one_needs_no_rule_and_every_other_byte_stays(
    scores: dict[tuple[str, str], float], shapes_dataset: Path, tmp_path: Path
) -> None:
    lines = [
        '{"image_path" :["images/00000.png"], "text":  [ "a green dot" ], "n": 1.50}\n',
        '{"text":"a red square","image_path":[ "images/00001.jpg"]}\n',
    ]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    evaluate(job(tmp_path, shapes_dataset))
    first, second = (scores[pair] for pair in zip(IMAGES, TEXTS[:2], strict=False))
    assert (tmp_path / "scored.jsonl").read_text() == (
        lines[0].replace("1.50", f'1.50, "clip_score": {first}') + lines[1].replace("]}", f'],"clip_score":{second}}}')
    )


def test_without_a_rule_a_row_with_several_has_no_score_and_says_what_to_do(
    shapes_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[dict[str, Any]] = [
        {"image_path": IMAGES[0], "text": list(TEXTS[:2])},
        {"image_path": list(IMAGES[:3]), "text": TEXTS[0]},
        {"image_path": IMAGES[0], "text": TEXTS[0]},
    ]
    scored(rows, tmp_path, shapes_dataset, error_key="why")
    assert column(tmp_path, "why") == ["text_invalid", "image_unreadable", None]
    assert "the row has 1 image and 2 captions; say in aggregate which score that gives: mean, max" in caplog.text
    assert "the row has 3 images and 1 caption; say in aggregate" in caplog.text


def test_where_every_row_has_several_the_job_says_what_to_do(shapes_dataset: Path, tmp_path: Path) -> None:
    write([{"image_path": list(IMAGES[:2]), "text": TEXTS[0]}] * 3, tmp_path)
    with pytest.raises(JobError, match="say in aggregate which score that gives"):
        evaluate(job(tmp_path, shapes_dataset, max_error_rate=0.1))


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"image_path": [IMAGES[0], "none.png"]}, "image_not_found", "image 2 of 2: there is no image at"),
        ({"image_path": [IMAGES[0], "images/broken.png"]}, "image_unreadable", "image 2 of 2: "),
        ({"image_path": [IMAGES[0], None, IMAGES[1]]}, "image_missing", "image 2 of 3: the row names no image"),
        ({"image_path": [[IMAGES[0], IMAGES[1]], IMAGES[1]]}, "image_unreadable", "image 1 of 2: a value of type list"),
        ({"text": ["a", " "]}, "text_empty", "caption 2 of 2: the caption is empty"),
        ({"text": ["a", 5]}, "text_invalid", "caption 2 of 2: the caption is of type int"),
        ({"image_path": []}, "image_missing", "the list of images is empty"),
        ({"text": []}, "text_missing", "the list of captions is empty"),
        ({"text": ["a"] * 101}, "text_invalid", "1 image and 101 captions make 101 pairs, more than the 100"),
        (
            {"image_path": [IMAGES[0]] * 51, "text": ["a", "b"]},
            "image_unreadable",
            "51 images and 2 captions make 102 pairs, more than the 100",
        ),
    ],
)
def test_a_row_is_scored_whole_or_not_at_all(
    row: dict[str, Any], reason: str, detail: str, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data / "images/broken.png").write_bytes(b"\x89PNG, but no image")
    rows = [{"image_path": IMAGES[0], "text": TEXTS[0]}, {"image_path": IMAGES[0], "text": TEXTS[0], **row}]
    scored(rows, tmp_path, data, aggregate="mean", error_key="why")
    assert column(tmp_path, "why") == [None, reason]
    assert detail in caplog.text


@pytest.mark.parametrize("cache_type", ["jsonl", "json", "parquet", "csv.gz"])
def test_all_scores_are_a_list_in_every_format(
    cache_type: str, scores: dict[tuple[str, str], float], shapes_dataset: Path, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"image_path": IMAGES[0], "text": list(TEXTS[:3])},
        {"image_path": IMAGES[1], "text": [TEXTS[0]]},
        {"image_path": "none.png", "text": list(TEXTS[:2])},
    ]
    of_first, of_second = [scores[IMAGES[0], text] for text in TEXTS[:3]], [scores[IMAGES[1], TEXTS[0]]]
    wanted = [pytest.approx(of_first, abs=1e-6), pytest.approx(of_second, abs=1e-6), None]
    if cache_type.startswith("csv"):  # whose cells hold no lists: all scores are of one pair
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image_path", "text"], [IMAGES[1], TEXTS[0]], ["none.png", TEXTS[1]]])
        evaluate(
            job(tmp_path, shapes_dataset, input=f"{tmp_path}/rows.csv", output=f"{tmp_path}/s.csv", aggregate="all")
        )
        with (tmp_path / "s.csv").open(newline="") as file:
            [_, first, second] = csv.reader(file)
        assert json.loads(first[2]) == wanted[1]
        assert second[2] == ""
        return
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "rows.parquet")
    write(rows, tmp_path)
    suffix = "parquet" if cache_type == "parquet" else "jsonl"
    target = tmp_path / f"scored.{cache_type}"
    evaluate(job(tmp_path, shapes_dataset, input=f"{tmp_path}/rows.{suffix}", output=str(target), aggregate="all"))
    if cache_type == "parquet":
        written = pq.read_table(target)
        assert written.drop_columns("clip_score") == table
        assert written.schema.field("clip_score").type == pa.list_(pa.float64())
        assert written["clip_score"].to_pylist() == wanted
    else:
        text = target.read_text()
        rows_written = json.loads(text) if cache_type == "json" else [json.loads(line) for line in text.splitlines()]
        assert [row["clip_score"] for row in rows_written] == wanted


def test_lists_of_hugging_face_images_in_parquet(
    scores: dict[tuple[str, str], float], shapes_dataset: Path, tmp_path: Path
) -> None:
    held = [{"bytes": (shapes_dataset / image).read_bytes(), "path": None} for image in IMAGES]
    table = pa.table({"images": [held[:2], held[2:5], held[5:6]], "text": [TEXTS[0]] * 3})
    pq.write_table(table, tmp_path / "rows.parquet")
    places = {"input": f"{tmp_path}/rows.parquet", "output": f"{tmp_path}/scored.parquet"}
    evaluate(job(tmp_path, shapes_dataset, **places, input_image_key="images", aggregate="max"))
    of_rows = [max(scores[image, TEXTS[0]] for image in IMAGES[a:b]) for a, b in ((0, 2), (2, 5), (5, 6))]
    assert pq.read_table(tmp_path / "scored.parquet")["clip_score"].to_pylist() == pytest.approx(of_rows, abs=1e-6)


def test_a_mean_has_mismatched_pairs_like_itself_and_the_highest_has_none(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Copies change nothing: the mean of a pair and itself is what it is, and so are mismatched pairs of such rows."""
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    rows = [{name: row[name] for name in ("image_path", "text")} for row in rows]
    alone = scored(rows, tmp_path, data, percentile_key="percentile")
    percentiles = column(tmp_path, "percentile")
    twice = [{name: [cell, cell] for name, cell in row.items()} for row in rows]
    mean = scored(twice, tmp_path, data, aggregate="mean", percentile_key="percentile")
    assert alone.calibration is not None
    assert mean.calibration is not None
    assert (mean.calibration.auc, mean.calibration.threshold) == (alone.calibration.auc, alone.calibration.threshold)
    assert column(tmp_path, "percentile") == percentiles
    highest = scored(twice, tmp_path, data, aggregate="max", percentile_key="percentile")
    assert highest.calibration is None
    assert highest.scores == alone.scores
    assert set(column(tmp_path, "percentile")) == {None}
    assert "no two with one image and one text (the max of several has no mismatched pairs) have a score" in caplog.text


@pytest.mark.parametrize("aggregate", ["mean", "all"])
def test_what_an_earlier_try_has_left_comes_to_the_same_bytes(
    aggregate: str, shapes_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = np.random.default_rng(3)

    def some(choices: Sequence[str]) -> list[str]:
        return [str(choice) for choice in drawn.choice(choices, drawn.integers(1, 4))]

    rows = [{"image_path": some(IMAGES), "text": some(TEXTS)} for _ in range(40)]
    asker = {"dag_id": "d", "run_id": "r", "task_id": "t"}
    fields: dict[str, Any] = {"aggregate": aggregate, "resume_point_rows": 8, "requested_by": asker}
    scored(rows, tmp_path, shapes_dataset, **fields)
    whole = (tmp_path / "scored.jsonl").read_bytes()
    (tmp_path / "again").mkdir()
    write(rows, tmp_path / "again")
    stop = threading.Event()
    add: Callable[..., None] = ResumePoints.add

    def stopped_after_two_segments(points: ResumePoints, *given: Any) -> None:
        add(points, *given)
        if points.saved_rows >= 16:
            stop.set()

    monkeypatch.setattr(ResumePoints, "add", stopped_after_two_segments)
    with pytest.raises(Cancelled):
        evaluate(job(tmp_path / "again", shapes_dataset, **fields), Storage(), stop)
    monkeypatch.undo()
    manifest = evaluate(job(tmp_path / "again", shapes_dataset, **fields))
    assert manifest.rows.resumed >= 16
    assert (tmp_path / "again/scored.jsonl").read_bytes() == whole


def test_the_score_store_gives_what_has_one_image_and_one_text(shapes_dataset: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image_path": [IMAGES[0]], "text": [TEXTS[0]]},
        {"image_path": IMAGES[1], "text": TEXTS[1]},
        {"image_path": list(IMAGES[:2]), "text": TEXTS[0]},
    ]
    fields = {"aggregate": "mean", "reuse": f"{tmp_path}/store", "overwrite": False}
    scored(rows, tmp_path, shapes_dataset, **fields)
    first = (tmp_path / "scored.jsonl").read_bytes()
    again = evaluate(job(tmp_path, shapes_dataset, **fields, output_key="clip_score", output=f"{tmp_path}/again.jsonl"))
    assert again.rows.reused == 2
    assert (tmp_path / "again.jsonl").read_bytes() == first


def test_another_rule_is_other_work(shapes_dataset: Path, tmp_path: Path) -> None:
    rows = [{"image_path": IMAGES[0], "text": list(TEXTS[:3])}]
    outputs = set()
    for aggregate in (*OF, "all"):
        scored(rows, tmp_path, shapes_dataset, aggregate=aggregate, overwrite=True)
        outputs.add((tmp_path / "scored.jsonl").read_bytes())
    assert len(outputs) == 4


@pytest.mark.parametrize("places", ["files", "frame", "parquet frame"])
def test_dataflows_users_bring_lists(
    places: str, scores: dict[tuple[str, str], float], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    rows = [{"image": [image], "text": TEXTS[0]} for image in IMAGES[:3]]
    rows.append({"image": list(IMAGES[:2]), "text": TEXTS[0]})
    one = [scores[image, TEXTS[0]] for image in IMAGES[:3]]
    wanted = pytest.approx([*one, min(one[:2])], abs=1e-6)
    evaluator = ImageCLIPEvaluator(SHAPES, image_root=str(data), aggregate="min")
    if places == "files":
        write(rows, tmp_path)
        storage = FileStorage(f"{tmp_path}/rows.jsonl", str(tmp_path), "seed", "jsonl")
        evaluator.run(storage.step(), input_image_key="image")
        assert [json.loads(line)["clip_score"] for line in (tmp_path / "seed_step1.jsonl").open()] == wanted
        return
    frame = pd.DataFrame(rows)
    if places == "parquet frame":  # whose lists are arrays
        frame.to_parquet(tmp_path / "frame.parquet")
        frame = pd.read_parquet(tmp_path / "frame.parquet")
    frames = Frames(frame)
    evaluator.run(frames, input_image_key="image")
    assert frames.written["clip_score"].tolist() == wanted


class Frames:
    """A storage that speaks data frames."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def read(self, _: str) -> pd.DataFrame:
        return self.frame

    def write(self, data: pd.DataFrame) -> None:
        self.written = data


def test_the_report_names_the_first_image_and_how_many_there_are(shapes_dataset: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image_path": list(IMAGES[:3]), "text": list(TEXTS[:2])},
        {"image_path": IMAGES[0], "text": TEXTS[0]},
    ]
    scored(rows, tmp_path, shapes_dataset, aggregate="mean")
    [page] = tmp_path.glob("*.html")
    text = page.read_text()
    assert "images/00000.png and 2 more" in text
    assert "a green dot · a red square" in text
