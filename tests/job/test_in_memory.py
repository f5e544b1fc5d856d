"""Pairs in memory get the scores that a data set of them would, in their order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import clip_operator
from clip_operator import EvaluationRequest, evaluate, score
from clip_operator.errors import JobError, RequestError
from tests.conftest import SHAPES

PALETTES = ("1", "L", "LA", "P", "RGB", "RGBA")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Images of every mode as files, with their scores as a data set's."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    found = []
    for mode in PALETTES:
        path = folder / f"{mode}.png"
        Image.fromarray(pixels).convert("RGB" if mode == "P" else "RGBA").convert(mode).save(path)
        found.append({"image_path": str(path), "text": f"a picture of mode {mode}"})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, found)))
    uris = {"input": f"{folder}/captions.jsonl", "output": f"{folder}/scored.jsonl"}
    evaluate(EvaluationRequest(**uris, model=SHAPES, image_root=str(folder)))
    return [json.loads(line) for line in (folder / "scored.jsonl").read_text().splitlines()]


def opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


FORMS: dict[str, Callable[[str], Any]] = {
    "paths": str,
    "path objects": Path,
    "bytes": lambda path: Path(path).read_bytes(),
    "images": opened,
    "open files": Image.open,
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_may_be_given_in_any_form(rows: list[dict[str, Any]], form: str) -> None:
    images = [FORMS[form](row["image_path"]) for row in rows]
    found = score(images, [row["text"] for row in rows], model=SHAPES, image_root=Path(rows[0]["image_path"]).parent)
    assert found == pytest.approx([row["clip_score"] for row in rows], abs=1e-6)
    assert found.errors == [None] * len(rows)


def test_arrays_are_images(rows: list[dict[str, Any]]) -> None:
    of_arrays = [row for row, mode in zip(rows, PALETTES, strict=True) if mode in ("L", "RGB", "RGBA")]
    arrays = [np.asarray(opened(row["image_path"])) for row in of_arrays]
    found = score(arrays, [row["text"] for row in of_arrays], model=SHAPES)
    assert found == pytest.approx([row["clip_score"] for row in of_arrays], abs=1e-6)
    stacked = np.stack([arrays[1], arrays[1]])
    assert len(set(score(stacked, np.array(["the same"] * 2), model=SHAPES))) == 1


def test_columns_of_a_data_frame_give_a_column(rows: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(rows, index=range(10, 10 + len(rows))).rename(columns={"clip_score": "expected"})
    frame.loc[12, "image_path"] = "/nowhere.png"
    root = Path(rows[0]["image_path"]).parent
    done = frame.assign(clip_score=score(frame["image_path"], frame["text"], model=SHAPES, image_root=root))
    assert done["clip_score"].dtype == np.float64
    assert done.index[done["clip_score"].isna()].tolist() == [12]
    scored = done.dropna(subset="clip_score")
    assert scored["clip_score"].to_numpy() == pytest.approx(scored["expected"].to_numpy(), abs=1e-6)


def test_a_pair_that_cannot_be_scored_has_a_reason_and_the_others_their_scores(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 30), "red")
    images = [image, "none.png", b"no image", None, image, image, image, np.zeros((2, 2, 7)), 5, "/etc/passwd"]
    texts = ["a red square", "a", "a", "a", "", None, float("nan"), "a", "a", "a"]
    found = score(images, texts, model=SHAPES, image_root=tmp_path)
    assert [value is None for value in found] == [False] + [True] * 9
    reasons = [None if error is None else error.partition(":")[0] for error in found.errors]
    assert reasons == [
        None, "image_not_found", "image_unreadable", "image_missing", "text_empty", "text_missing", "text_missing",
        "image_unreadable", "image_unreadable", "image_forbidden",
    ]  # fmt: skip
    assert np.isnan(np.array(found, float)).sum() == 9


def test_where_nothing_can_be_scored_there_are_reasons_and_no_error() -> None:
    found = score(["none.png"], ["a"], model=SHAPES)
    assert found == [None]
    assert found.errors[0] is not None


def test_no_pairs_have_no_scores() -> None:
    found = score([], [], model="of no interest")
    assert (found, found.errors) == ([], [])


def test_what_is_wrong_for_all_pairs_is_an_error_with_words() -> None:
    with pytest.raises(RequestError, match="there are 2 images and 1 texts; a pair has one of each"):
        score(["a", "b"], ["a"], model=SHAPES)
    with pytest.raises(RequestError, match="images is a single value; give a list of them"):
        score("a.png", ["a"], model=SHAPES)
    with pytest.raises(RequestError, match="precision"):
        score(["a.png"], ["a"], model=SHAPES, precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(JobError, match="not found"):
        score(["a.png"], ["a"], model="./nowhere")


def test_the_public_names_are_listed() -> None:
    assert dir(clip_operator) == sorted([*clip_operator.__all__, "__version__"])
    assert {"score", "evaluate", "EvaluationRequest"} <= set(dir(clip_operator))


SCRIPT = """
from PIL import Image
import clip_operator
print(len(clip_operator.score([Image.new("RGB", (30, 30), "red")] * 300, ["a red square"] * 300, model=MODEL)))
"""


def test_a_script_without_a_guard_and_one_from_standard_input_work_and_say_nothing(tmp_path: Path) -> None:
    """As in a notebook: the workers are processes that never import what is run."""
    text = SCRIPT.replace("MODEL", repr(SHAPES))
    (tmp_path / "script.py").write_text(text)
    for command, given in (([str(tmp_path / "script.py")], ""), (["-"], text)):
        done = subprocess.run([sys.executable, *command], input=given, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "300\n", "")


def test_bytes_of_an_image_are_the_same_as_the_image() -> None:
    image, file = Image.linear_gradient("L").convert("HSV"), BytesIO()
    image.convert("RGB").save(file, "PNG")
    one, other = score([image, file.getvalue()], ["a gradient"] * 2, model=SHAPES)
    assert one == other
