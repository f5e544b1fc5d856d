"""rescore="failed": what has a score keeps it, and only rows that another try may help are tried again."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError
from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.images.workers.task import ImageTask
from clip_operator.job.evaluation import evaluate
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.storage import ObjectInfo, Storage
from tests.conftest import SHAPES


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that workers were asked for."""
    names: list[str] = []
    preparing = ImageWorkers.preparing

    @contextmanager
    def noted(
        workers: ImageWorkers, *arguments: Any, **options: Any
    ) -> Iterator[Callable[[Sequence[ImageTask]], None]]:
        with preparing(workers, *arguments, **options) as submit:

            def note(tasks: Sequence[ImageTask]) -> None:
                names.extend(Path(task.location.key).name for task in tasks)
                submit(tasks)

            yield note

    monkeypatch.setattr(ImageWorkers, "preparing", noted)
    return names


@pytest.fixture
def data(shapes_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the demo data set, four of whose images are away for a while: 00000 to 00003."""
    copy = shutil.copytree(shapes_dataset, tmp_path / "data")
    (tmp_path / "away").mkdir()
    for path in (copy / "images").glob("0000[0-3].*"):
        path.rename(tmp_path / "away" / path.name)
    return copy


def bring_back(data: Path) -> None:
    for path in (data.parent / "away").iterdir():
        path.rename(data / "images" / path.name)


def request(folder: Path, **fields: Any) -> EvaluationRequest:
    defaults = {
        "input": f"{folder}/captions.jsonl",
        "output": f"{folder}/scored_step1.jsonl",
        "model": SHAPES,
        "error_key": "why",
        "max_error_rate": 0.5,
        "report": False,  # it looks at images, too
    }
    return parse_request({**defaults, **fields})


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_only_rows_that_failed_for_a_passing_reason_are_tried_again(data: Path, fetched: list[str]) -> None:
    first = evaluate(request(data))
    assert first.rows.failures == {"image_not_found": 5, "image_unreadable": 1, "text_empty": 1, "text_missing": 1}
    before = rows(data / "scored_step1.jsonl")
    bring_back(data)
    fetched.clear()
    second = evaluate(request(data, rescore="failed"))
    assert second.rows.failures == {"image_not_found": 1, "image_unreadable": 1, "text_empty": 1, "text_missing": 1}
    broken = next(row["image_path"] for row in before if row["why"] == "image_unreadable")
    missing = next(row["image_path"] for row in rows(data / "scored_step1.jsonl") if row["why"] == "image_not_found")
    tried = {Path(row["image_path"]).name for row in before[:4]} | {Path(broken).name, Path(missing).name}
    assert set(fetched) == tried
    assert (second.rows.total, second.rows.resumed) == (64, 56)
    for old, new in zip(before, rows(data / "scored_step1.jsonl"), strict=True):
        if old["clip_score"] is not None:
            assert new == old
    whole = rows_scored_anew(data)
    scored = rows(data / "scored_step1.jsonl")
    assert [row["clip_score"] for row in scored] == pytest.approx(whole, abs=1e-5, nan_ok=True)


def rows_scored_anew(data: Path) -> list[float | None]:
    evaluate(request(data, output=f"{data}/anew.jsonl"))
    return [row["clip_score"] for row in rows(data / "anew.jsonl")]


def test_where_nothing_is_to_be_tried_again_nothing_is_done(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = [row for row in rows(data / "captions.jsonl")[4:] if row["label"] in ("match", "mismatch")]
    lines = [json.dumps(row) + "\n" for row in good]
    (data / "captions.jsonl").write_text("".join(lines))
    first = evaluate(request(data))
    assert first.rows.failed == 0
    with caplog.at_level(logging.INFO):
        assert evaluate(request(data, rescore="failed")) == first
    assert "is complete already" in caplog.text


def test_a_request_that_allows_more_keeps_the_scores(data: Path) -> None:
    """That is what rescoring is for: a host, a bucket or a size that was forbidden is allowed now."""
    sizes = sorted(path.stat().st_size for path in (data / "images").iterdir())
    first = evaluate(request(data, max_image_bytes=sizes[len(sizes) // 2], max_error_rate=1))
    assert first.rows.failures["image_too_large"] > 20
    bring_back(data)
    manifest = evaluate(request(data, rescore="failed"))
    assert manifest.rows.scored == 60
    assert manifest.rows.resumed == first.rows.scored


@pytest.mark.parametrize(
    "change",
    [
        {"input_text_key": "label"},
        {"image_decoding": "reduced"},
        {"image_orientation": "exif"},
        {"precision": "bf16"},
        {"image_root": "."},
    ],
)
def test_scores_of_a_request_that_scores_otherwise_are_not_kept(
    data: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    evaluate(request(data))
    manifest = evaluate(request(data, rescore="failed", **change))
    assert manifest.rows.resumed == 0
    assert "none of its scores can be kept; all rows are scored" in caplog.text


def test_scores_of_another_version_of_the_data_set_are_not_kept(data: Path) -> None:
    evaluate(request(data))
    lines = (data / "captions.jsonl").read_text().splitlines(keepends=True)
    (data / "captions.jsonl").write_text("".join(reversed(lines)))
    assert evaluate(request(data, rescore="failed")).rows.resumed == 0


@pytest.mark.usefixtures("drivers")
def test_an_output_that_is_swapped_before_its_scores_are_taken_over_gives_none(data: Path) -> None:
    class Swapping(Storage):
        def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
            if ".resume/" in prefix:  # the output is known to be proved, and not read yet
                self.write(other, output)
            return super().list(prefix, start_after)

    output = "digesting://steps/scored_step1.jsonl"
    evaluate(request(data, output=output))
    proved = Storage().read(output)
    other = b"".join(reversed(proved.splitlines(keepends=True)))
    with pytest.raises(JobError, match=f"{output} changed while it was being read"):
        evaluate(request(data, output=output, rescore="failed"), Swapping())
    assert Storage().read(output) == other
    assert not list(Storage().list(f"{output}.resume/"))


def test_without_an_output_all_rows_are_scored(data: Path) -> None:
    assert evaluate(request(data, rescore="failed")).rows.resumed == 0


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.mark.parametrize("on_error", ["null", "zero"])
@pytest.mark.parametrize("suffix", ["json", "csv", "parquet", "jsonl.gz"])
def test_it_works_in_every_format(data: Path, suffix: str, on_error: str) -> None:
    columns = ("image_path", "text")
    write_table(
        [{key: row[key] for key in columns} for row in rows(data / "captions.jsonl")], data / f"captions.{suffix}"
    )
    fields = {"input": f"{data}/captions.{suffix}", "output": f"{data}/scored.{suffix}", "on_error": on_error}
    first = evaluate(request(data, **fields))
    bring_back(data)
    second = evaluate(request(data, **fields, rescore="failed"))
    assert (first.rows.scored, second.rows.scored, second.rows.resumed) == (56, 60, 56)
    anew = evaluate(request(data, **fields | {"output": f"{data}/anew.{suffix}"}))
    assert second.scores is not None
    assert anew.scores is not None
    assert second.scores.mean == pytest.approx(anew.scores.mean, abs=1e-6)
