"""The interface that DataFlow's users know, with its names, defaults and return value."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clip_operator import FileStorage, ImageCLIPEvaluator, model
from clip_operator.errors import JobError, RequestError
from clip_operator.storage import Storage
from tests.conftest import SHAPES


def test_names_and_defaults_are_dataflows() -> None:
    init, run = (inspect.signature(f).parameters for f in (ImageCLIPEvaluator, ImageCLIPEvaluator.run))
    assert [(p.name, p.default) for p in list(init.values())[:2]] == [
        ("model_name", "openai/clip-vit-base-patch32"),
        ("device", None),
    ]
    assert [(p.name, p.default) for p in run.values() if p.name not in ("self", "storage")] == [
        ("input_image_key", "image_path"),
        ("input_text_key", "text"),
        ("output_key", "clip_score"),
    ]


def test_dataflows_own_example_runs_as_it_stands(
    shapes_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = Path("dataflow/example/test_image_eval")
    shutil.copytree(shapes_dataset, example)
    (example / "captions.jsonl").rename(example / "test_image_eval.jsonl")
    # A folder of the model's name stands in for the hub, which tests must not need.
    shutil.copytree(model.find_checkpoint(SHAPES, None, Storage()).path, "openai/clip-vit-base-patch32")

    storage = FileStorage(
        first_entry_file_name="./dataflow/example/test_image_eval/test_image_eval.jsonl",
        cache_path="./cache_local",
        file_name_prefix="clip_eval",
        cache_type="jsonl",
    )
    evaluator = ImageCLIPEvaluator(model_name="openai/clip-vit-base-patch32", device=None)
    cols = evaluator.run(
        storage=storage.step(), input_image_key="image_path", input_text_key="text", output_key="clip_score"
    )

    assert cols == ["clip_score"]
    rows = [json.loads(line) for line in Path("cache_local/clip_eval_step1.jsonl").read_text().splitlines()]
    assert len(rows) == 64
    assert sum(row["clip_score"] is not None for row in rows) == 60


class FrameStorage:
    """What DataFlow's storage looks like to an operator: data frames in, data frames out."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def read(self, output_type: str) -> pd.DataFrame:
        assert output_type == "dataframe"
        return self.frame

    def write(self, data: pd.DataFrame) -> None:
        self.written = data


def test_a_storage_of_data_frames_gets_the_same_scores_as_files(
    shapes_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileStorage(f"{shapes_dataset}/captions.jsonl", str(tmp_path), "captions", "jsonl")
    ImageCLIPEvaluator(SHAPES).run(files.step(), output_key="score")
    expected = [json.loads(line)["score"] for line in (tmp_path / "captions_step1.jsonl").read_text().splitlines()]

    monkeypatch.chdir(shapes_dataset)
    rows = [json.loads(line) for line in (shapes_dataset / "captions.jsonl").read_text().splitlines()]
    storage = FrameStorage(pd.DataFrame(rows))
    assert ImageCLIPEvaluator(SHAPES).run(storage, output_key="score") == ["score"]
    pd.testing.assert_frame_equal(storage.written.drop(columns="score"), storage.frame)
    assert [None if pd.isna(score) else score for score in storage.written["score"]] == expected


def test_on_error_zero_gives_dataflows_zeros(shapes_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shapes_dataset)
    frame = pd.DataFrame({"image_path": ["images/00000.png", "images/none.png"], "text": ["a green dot", "gone"]})
    storage = FrameStorage(frame)
    ImageCLIPEvaluator(SHAPES, on_error="zero").run(storage)
    assert storage.written["clip_score"].tolist()[1] == 0.0


def test_what_rows_may_name_is_said_to_the_evaluator(shapes_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shapes_dataset)
    frame = pd.DataFrame({"image_path": ["images/00000.png", "s3://elsewhere/x.png"], "text": ["a green dot"] * 2})
    storage = FrameStorage(frame)
    ImageCLIPEvaluator(SHAPES).run(storage)
    assert storage.written["clip_score"].isna().tolist() == [False, True]
    with pytest.raises(RequestError, match="elsewhere"):
        ImageCLIPEvaluator(SHAPES, image_buckets=["s3://elsewhere/x.png"]).run(FrameStorage(frame))
    with pytest.raises(RequestError, match="elsewhere"):
        ImageCLIPEvaluator(SHAPES, image_hosts=["http://elsewhere"]).run(FrameStorage(frame))


def test_values_inside_of_columns_are_named_by_a_path(shapes_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shapes_dataset)
    captions = ["a green dot", None]
    frame = pd.DataFrame(
        {
            "image": [{"path": "images/00000.png"}] * 2,
            "conversation": [
                np.array([{"value": caption}], object) if caption else np.array([]) for caption in captions
            ],
        }
    )
    storage = FrameStorage(frame)
    evaluator = ImageCLIPEvaluator(SHAPES, max_error_rate=0.5)
    assert evaluator.run(storage, "image.path", "conversation[0].value") == ["clip_score"]
    assert storage.written["clip_score"].notna().tolist() == [True, False]
    with pytest.raises(JobError, match=r"no column 'conversation\[1\].value'; its columns are 'image', 'conversation'"):
        evaluator.run(FrameStorage(frame), "image.path", "conversation[1].value")


def test_a_frame_without_the_column_is_refused_and_nothing_is_written() -> None:
    storage = FrameStorage(pd.DataFrame({"image_path": ["a.png"], "caption": ["a"]}))
    with pytest.raises(JobError, match="no column 'text'; its columns are 'image_path', 'caption'"):
        ImageCLIPEvaluator(SHAPES).run(storage)
    assert not hasattr(storage, "written")


def test_a_frame_whose_rows_all_fail_is_an_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = FrameStorage(pd.DataFrame({"image_path": ["none.png"], "text": ["a"]}))
    with pytest.raises(JobError, match=rf"none of the 1 rows could be scored .* start at {tmp_path}"):
        ImageCLIPEvaluator(SHAPES).run(storage)
    assert not hasattr(storage, "written")


def test_a_storage_that_was_not_stepped_and_one_that_is_none_are_refused(shapes_dataset: Path) -> None:
    with pytest.raises(RequestError, match=r"call storage.step\(\) first"):
        ImageCLIPEvaluator(SHAPES).run(FileStorage(f"{shapes_dataset}/captions.jsonl"))
    no_storage: Any = "captions.jsonl"
    with pytest.raises(RequestError, match="str is no storage"):
        ImageCLIPEvaluator(SHAPES).run(no_storage)
