"""With a score store, the next version of a data set is scored as ever, but only what is new in it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import parse_request
from tests.conftest import S3, SHAPES

Row = dict[str, Any]


class DataSet:
    """The demo data set in S3, in versions that share a score store."""

    def __init__(self, s3: S3, folder: str) -> None:
        self._s3 = s3
        self.folder = folder
        self.rows: list[Row] = [json.loads(line) for line in s3.get(f"{folder}/captions.jsonl").splitlines()]
        self._versions = 0

    def score(self, rows: list[Row] | None = None, **fields: Any) -> tuple[EvaluationManifest, list[Row]]:
        """Evaluate a version that has these rows; return its manifest and what was written."""
        self._versions += 1
        text = "".join(json.dumps(row) + "\n" for row in (self.rows if rows is None else rows))
        request = {
            "input": self._s3.put(f"shapes/version{self._versions}.jsonl", text.encode()),
            "output": f"{self.folder}/scored{self._versions}.jsonl",
            "model": SHAPES,
            "reuse": f"s3://{self._s3.bucket}/cache",
            "max_error_rate": 1,
        }
        manifest = evaluate(parse_request(request | fields), self._s3.storage)
        return manifest, [json.loads(line) for line in self._s3.get(manifest.output.uri).splitlines()]


@pytest.fixture
def data(s3: S3, shapes_dataset: Any) -> DataSet:
    return DataSet(s3, s3.put_folder(shapes_dataset, "shapes"))


def encoded(manifest: EvaluationManifest) -> tuple[int, int]:
    assert manifest.throughput is not None
    return manifest.throughput.images_encoded, manifest.throughput.texts_encoded


# Of 64 rows, two have no image that can be decoded and are tried again every time, and two have no text.
UNREADABLE = 2


def test_the_same_rows_under_another_name_need_no_model_and_get_the_same_bytes(data: DataSet, s3: S3) -> None:
    first, _ = data.score()
    again, _ = data.score()
    assert (first.rows.reused, again.rows.reused) == (0, 60)
    assert again.rows.scored == 60
    assert encoded(again) == (UNREADABLE, UNREADABLE)
    assert s3.get(first.output.uri) == s3.get(again.output.uri)
    assert again.scores == first.scores


def test_a_version_with_rows_put_in_taken_out_changed_and_moved_encodes_the_new_pairs_alone(data: DataSet) -> None:
    _, before = data.score()
    scores = {row["id"]: row["clip_score"] for row in before}
    good = [row for row in data.rows if scores[row["id"]] is not None]
    version = good[3:]  # taken out at the start
    random.Random(2).shuffle(version)
    version[10]["text"] = "a caption that nobody has written before"
    version.insert(20, {"id": "new", "image_path": good[0]["image_path"], "text": "a green circle"})
    manifest, after = data.score(version)
    assert encoded(manifest) == (2, 2)
    assert manifest.rows.reused == len(version) - 2
    for row in after:
        if row["id"] not in ("new", version[10]["id"]):
            assert row["clip_score"] == scores[row["id"]]
    fresh, expected = data.score(version, reuse=None)
    assert fresh.rows.reused == 0
    for row, other in zip(after, expected, strict=True):
        assert row["clip_score"] == pytest.approx(other["clip_score"], abs=1e-6)


def test_an_image_that_was_replaced_under_its_name_is_scored_anew(data: DataSet, s3: S3) -> None:
    _, before = data.score()
    first, other = data.rows[0]["image_path"], data.rows[1]["image_path"]
    s3.put(f"shapes/{first}", s3.get(f"{data.folder}/{other}"))
    manifest, after = data.score()
    assert manifest.rows.reused == 59
    assert encoded(manifest) == (1 + UNREADABLE, 1 + UNREADABLE)
    assert after[0]["clip_score"] != before[0]["clip_score"]
    assert after[1:] == before[1:]


@pytest.mark.parametrize("other", [{"precision": "bf16"}, {"image_decoding": "reduced"}, {"overwrite": True}])
def test_no_score_is_taken_where_another_would_be_computed_or_is_asked_for(
    data: DataSet, other: dict[str, Any]
) -> None:
    data.score(data.rows[:8])
    assert data.score(data.rows[:8], **other)[0].rows.reused == 0
    assert data.score(data.rows[:8])[0].rows.reused == 8
