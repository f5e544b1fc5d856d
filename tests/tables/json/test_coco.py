"""COCO's captions: annotations with the names of their images, in the same file or as lines of their own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import cut_text, file_type_of, open_table, text_files
from tests.tables.rewriting import refusal, rewrite, rewritten

IMAGES = st.dictionaries(
    st.integers(0, 9) | st.sampled_from(["a", "7"]), st.text(st.characters(codec="utf-8"), max_size=5), min_size=1
)
ANNOTATIONS = st.lists(
    st.fixed_dictionaries(
        {"image_id": st.integers(0, 9) | st.sampled_from(["a", "7", None, [1]]), "caption": st.text()}
    ),
    min_size=1,
    max_size=6,
)
PARTS = ["info", "licenses", "images", "annotations", "categories"]


def coco(images: dict[Any, str], annotations: list[dict[str, Any]], order: list[str], **style: Any) -> str:
    parts = {
        "info": {"version": "1.0"},
        "licenses": [{"id": 1, "name": "CC"}],
        "images": [{"license": 1, "file_name": name, "id": key} for key, name in images.items()],
        "annotations": annotations,
        "categories": [],
    }
    return json.dumps({part: parts[part] for part in order}, **style)


@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=IMAGES,
    annotations=ANNOTATIONS,
    order=st.permutations(PARTS),
    indent=st.sampled_from([None, 1]),
    chunk=st.integers(1, 7),
)
def test_the_same_file_has_the_scores_and_lines_have_the_names_of_the_images(
    tmp_path: Path,
    images: dict[Any, str],
    annotations: list[dict[str, Any]],
    order: list[str],
    indent: int | None,
    chunk: int,
) -> None:
    scores = [number / 7 for number in range(len(annotations))]
    content = coco(images, annotations, order, indent=indent).encode()
    scored = [{**row, "s": score} for row, score in zip(annotations, scores, strict=True)]
    written = rewritten(tmp_path, "t.json", content, {"s": scores}, chunk)
    assert written.decode() == coco(images, scored, order, indent=indent)

    names = [images.get(row["image_id"]) if row["image_id"] != [1] else None for row in annotations]
    for columns in (["file_name"], []):
        with open_table(tmp_path / "t.json", file_type_of("json"), columns) as table:
            assert table.scan().rows == len(annotations)
            assert [value for some in table.chunks(chunk) for value in some.column("file_name")] == names

    lines = [
        {**row, "file_name": name, "s": score} for row, name, score in zip(annotations, names, scores, strict=True)
    ]
    rewrite(tmp_path / "t.json", tmp_path / "t.jsonl", {"s": scores}, chunk)
    assert [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()] == lines
    rewrite([tmp_path / "t.json"], tmp_path / "many.json", {"s": scores}, chunk)
    assert json.loads((tmp_path / "many.json").read_text()) == lines


ONE = [{"image_id": 1, "caption": "a"}]


def test_a_name_that_stands_in_the_annotation_is_left_as_it_is(tmp_path: Path) -> None:
    content = coco({1: "1.png"}, [{**ONE[0], "file_name": "own.png"}], PARTS).encode()
    assert json.loads(rewritten(tmp_path, "t.json", content, {}, target="jsonl"))["file_name"] == "own.png"


@pytest.mark.parametrize("annotation", [{"image_id": 1, "bbox": [0, 0, 1, 1]}, {"caption": "a"}])
def test_annotations_without_captions_are_refused(tmp_path: Path, annotation: dict[str, Any]) -> None:
    content = coco({1: "1.png"}, [annotation], PARTS).encode()
    message = refusal(tmp_path, "t.json", content)
    assert message.startswith("The file holds an object with 3 lists of objects ('licenses', 'images', 'annotations')")
    assert message.endswith("if images have id and file_name, and annotations image_id and caption")


def test_it_is_not_cut_into_shards() -> None:
    with pytest.raises(JobError, match=r"COCO's captions are read as they are, by one task and not by shards"):
        cut_text(io.BytesIO(coco({1: "1.png"}, ONE, PARTS).encode()), file_type_of("json"), 1)


def test_the_names_of_the_images_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_ROW_LENGTH", 1024 * 1024)
    content = coco({number: f"{number}.png" for number in range(5000)}, ONE, PARTS).encode()
    assert refusal(tmp_path, "t.json", content).startswith("The list of images is larger than 1 MiB")
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(5000)]
    (tmp_path / "images.json").write_text(json.dumps({"images": images}))  # no COCO, and a table of any size
    with open_table(tmp_path / "images.json", file_type_of("json")) as table:
        assert table.scan().rows == 5000
