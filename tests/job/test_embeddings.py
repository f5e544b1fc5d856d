"""The embeddings of all rows, written beside a step: those that the scores are made of, row by row."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError, RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import ObjectInfo, Storage, StorageError
from tests.conftest import S3, SHAPES

SEGMENT = 16
ROWS = 64  # of the data set


def request(data: Path, folder: Path | str, **fields: Any) -> EvaluationRequest:
    defaults = {
        "input": f"{data}/captions.jsonl",
        "output": f"{folder}/out.jsonl",
        "image_root": str(data),
        "model": SHAPES,
        "resume_point_rows": SEGMENT,
        "embeddings_path": f"{folder}/embeddings",
        "embeddings_dtype": "float32",
    }
    return parse_request({**defaults, **fields})


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all part files, in the order of their names."""
    parts = sorted(folder.glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def scores(output: Path) -> list[float | None]:
    return [json.loads(line)["clip_score"] for line in output.read_text().splitlines()]


def score_of(row: dict[str, Any]) -> float:
    image, text = (np.array(row[f"{what}_embedding"], np.float64) for what in ("image", "text"))
    return float((image @ text + 1) / 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-3)])
def test_every_row_has_the_embeddings_that_its_score_is_made_of(
    shapes_dataset: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    manifest = evaluate(request(shapes_dataset, tmp_path, embeddings_dtype=dtype))
    found, expected = rows(tmp_path / "embeddings"), scores(tmp_path / "out.jsonl")
    assert [row["row"] for row in found] == list(range(ROWS))
    for row, score in zip(found, expected, strict=True):
        if score is not None:
            assert score_of(row) == pytest.approx(score, abs=tolerance)
            assert np.linalg.norm(row["image_embedding"]) == pytest.approx(1, abs=tolerance)
    assert manifest.embeddings is not None
    told = manifest.embeddings
    assert (told.rows, told.files, told.dimensions, told.dtype) == (ROWS, ROWS // SEGMENT, 128, dtype)
    [schema] = {pq.read_schema(part) for part in (tmp_path / "embeddings").glob("*.parquet")}
    vector = f"fixed_size_list<element: {'float' if dtype == 'float32' else 'halffloat'}>[128]"
    assert [str(field.type) for field in schema] == ["int64", vector, vector]


def test_a_row_without_a_score_keeps_what_could_be_had(shapes_dataset: Path, tmp_path: Path) -> None:
    evaluate(request(shapes_dataset, tmp_path, error_key="why"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    bad = {line["why"].partition(":")[0]: row for line, row in zip(lines, rows(tmp_path / "embeddings"), strict=True)
           if line["clip_score"] is None}  # fmt: skip
    has = {
        reason: (row["image_embedding"] is not None, row["text_embedding"] is not None) for reason, row in bad.items()
    }
    assert has == {
        "image_unreadable": (False, True),
        "image_not_found": (False, True),
        "text_empty": (False, False),
        "text_missing": (False, False),
    }


def test_a_file_says_of_itself_what_it_holds(shapes_dataset: Path, tmp_path: Path) -> None:
    manifest = evaluate(request(shapes_dataset, tmp_path))
    told = json.loads(pq.read_schema(tmp_path / "embeddings" / "part-000000000016.parquet").metadata[b"clip_operator"])
    assert told["model"] == SHAPES
    assert told["model_digest"] == manifest.model.digest
    assert (told["dtype"], told["dimensions"], told["normalised"]) == ("float32", 128, True)
    assert (told["input"], told["input_etag"]) == (manifest.input.uri, manifest.input.etag)


@pytest.mark.parametrize("harm", ["removed", "replaced", "one more"])
def test_an_output_whose_embeddings_are_not_all_there_is_made_again(
    shapes_dataset: Path, tmp_path: Path, harm: str
) -> None:
    work = request(shapes_dataset, tmp_path)
    first = evaluate(work)
    assert evaluate(work).started_at == first.started_at
    before = rows(tmp_path / "embeddings")
    part = tmp_path / "embeddings" / "part-000000000016.parquet"
    if harm == "one more":
        part.with_name("part-000000009000.parquet").write_bytes(part.read_bytes())
    elif harm == "replaced":
        part.write_bytes(part.with_name("part-000000000032.parquet").read_bytes())
    else:
        part.unlink()
    again = evaluate(work)
    assert again.started_at > first.started_at
    assert rows(tmp_path / "embeddings") == before
    assert evaluate(work).started_at == again.started_at


def test_an_output_without_embeddings_does_not_answer_a_request_for_them(shapes_dataset: Path, tmp_path: Path) -> None:
    plain = evaluate(request(shapes_dataset, tmp_path, embeddings_path=None))
    assert plain.embeddings is None
    for dtype in ("float16", "float32"):
        manifest = evaluate(request(shapes_dataset, tmp_path, embeddings_dtype=dtype))
        assert manifest.embeddings is not None
        assert manifest.embeddings.dtype == dtype
        assert len(rows(tmp_path / "embeddings")) == ROWS


def test_of_embeddings_that_are_of_no_output_any_more_the_log_says_so(
    shapes_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(request(shapes_dataset, tmp_path))
    evaluate(request(shapes_dataset, tmp_path, embeddings_dtype="float16"))
    assert "that was replaced" not in caplog.text
    evaluate(request(shapes_dataset, tmp_path, embeddings_path=None))
    assert f"{tmp_path}/embeddings holds the embeddings of an output that was replaced: remove it" in caplog.text


def test_parts_of_an_earlier_version_of_the_step_are_removed(shapes_dataset: Path, tmp_path: Path) -> None:
    lines = (shapes_dataset / "captions.jsonl").read_text().splitlines(keepends=True)
    shorter = tmp_path / "in.jsonl"
    for count in (ROWS, 20):
        shorter.write_text("".join(lines[:count]))
        manifest = evaluate(request(shapes_dataset, tmp_path, input=str(shorter)))
        assert [row["row"] for row in rows(tmp_path / "embeddings")] == list(range(count))
    assert manifest.embeddings is not None
    assert manifest.embeddings.files == 2


def test_the_embeddings_of_another_output_are_replaced_only_where_that_is_said(
    shapes_dataset: Path, tmp_path: Path
) -> None:
    first = evaluate(request(shapes_dataset, tmp_path))
    other = {"output": f"{tmp_path}/other.jsonl", "embeddings_dtype": "float16"}
    held = (tmp_path / "embeddings" / "part-000000000000.parquet").read_bytes()
    with pytest.raises(JobError, match=r"holds embeddings already .* those of .*out\.jsonl.*overwrite=True"):
        evaluate(request(shapes_dataset, tmp_path, **other))
    assert (tmp_path / "embeddings" / "part-000000000000.parquet").read_bytes() == held
    assert not (tmp_path / "other.jsonl").exists()
    (tmp_path / "embeddings" / "_owner.json").unlink()
    with pytest.raises(JobError, match="nothing says whose they are"):
        evaluate(request(shapes_dataset, tmp_path, **other))
    replaced = evaluate(request(shapes_dataset, tmp_path, **other, overwrite=True))
    assert replaced.embeddings is not None
    assert evaluate(request(shapes_dataset, tmp_path, **other)).started_at == replaced.started_at
    with pytest.raises(JobError, match=r"those of .*other\.jsonl"):
        evaluate(first.request)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_left_alone(shapes_dataset: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "embeddings" / "deeper").mkdir(parents=True)
    (tmp_path / "embeddings" / "_SUCCESS").touch()  # which no reader takes for data
    (tmp_path / "embeddings" / "deeper" / "mine.parquet").write_text("mine")
    with pytest.raises(JobError, match=r"holds 'deeper/mine.parquet', which is no file of embeddings"):
        evaluate(request(shapes_dataset, tmp_path, overwrite=overwrite))


@pytest.mark.parametrize("overwrite", [False, True])
def test_instances_of_a_mapped_task_do_not_share_a_folder(
    shapes_dataset: Path, tmp_path: Path, overwrite: bool
) -> None:
    def instance(index: int) -> EvaluationManifest:
        asker = Requester(dag_id="d", run_id="r", task_id="t", map_index=index).model_dump()
        output = f"{tmp_path}/{index}.jsonl"
        return evaluate(request(shapes_dataset, tmp_path, output=output, requested_by=asker, overwrite=overwrite))

    instance(0)
    with pytest.raises(JobError, match=r"instance 0 of this mapped task in this run, and instance 1 would replace"):
        instance(1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"embeddings_path": "{data}"}, r"captions\.jsonl is in .*: let embeddings_path name a folder for nothing but"),
        ({"output": "{out}/embeddings/out.jsonl"}, r"out\.jsonl is in .*embeddings"),
        ({"embeddings_path": "{out}/out.jsonl.resume/e"}, "is removed when the job is done"),
        ({"input": "{out}/in/", "embeddings_path": "{out}/in/e"}, "would be a part of the input"),
    ],
)
def test_the_folder_is_apart_from_what_is_read_and_written(
    shapes_dataset: Path, tmp_path: Path, fields: dict[str, str], words: str
) -> None:
    given = {name: value.format(data=shapes_dataset, out=tmp_path) for name, value in fields.items()}
    (tmp_path / "in").mkdir()
    shutil.copy(shapes_dataset / "captions.jsonl", tmp_path / "in")
    before = sorted(shapes_dataset.rglob("*"))
    with pytest.raises(RequestError, match=words):
        evaluate(request(shapes_dataset, tmp_path, **given))
    assert sorted(shapes_dataset.rglob("*")) == before
    assert not list(tmp_path.rglob("*.parquet"))


def test_in_object_storage_they_are_the_same_bytes(shapes_dataset: Path, tmp_path: Path, s3: S3) -> None:
    root = f"s3://{s3.bucket}/steps"
    here = evaluate(request(shapes_dataset, tmp_path))
    there = evaluate(request(shapes_dataset, root), s3.storage)
    assert here.embeddings is not None
    assert there.embeddings is not None
    assert there.embeddings.folder.uri == f"{root}/embeddings"
    assert there.embeddings.folder.size == here.embeddings.folder.size
    for part in (tmp_path / "embeddings").glob("part-*"):
        assert s3.get(f"{root}/embeddings/{part.name}") == part.read_bytes()
    assert evaluate(there.request, s3.storage).started_at == there.started_at


def test_one_part_is_not_written_over_another_jobs(shapes_dataset: Path, tmp_path: Path) -> None:
    class Meeting(Storage):
        """Has another job write a part right before this one does."""

        def upload(self, path: Path, uri: str, *condition: Any) -> Any:
            if uri.endswith("part-000000000016.parquet"):
                self.write(b"another job's", uri)
            return super().upload(path, uri, *condition)

    with pytest.raises(JobError, match=re.compile(r"another job has written .*part-000000000016\.parquet")):
        evaluate(request(shapes_dataset, tmp_path), Meeting())
    assert (tmp_path / "embeddings" / "part-000000000016.parquet").read_bytes() == b"another job's"
    assert not (tmp_path / "out.jsonl").exists()


def in_shards(work: EvaluationRequest, storage: Storage | None = None, shards: int = 3) -> EvaluationManifest:
    storage = storage or Storage()
    plan = plan_shards(work, storage, shards=shards)
    assert len(plan.names) == shards
    for index in reversed(range(shards)):
        evaluate(plan.nth_request(index, None), storage)
    return merge_shards(plan.uri, storage, None)


def as_parquet(data: Path, folder: Path) -> str:
    lines = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(lines), folder / "captions.parquet", row_group_size=SEGMENT)
    return f"{folder}/captions.parquet"


@pytest.mark.parametrize("layout", ["jsonl", "parquet", "part files"])
def test_shards_write_the_rows_of_a_single_task_in_the_order_of_names(
    shapes_dataset: Path, tmp_path: Path, layout: str
) -> None:
    source = as_parquet(shapes_dataset, tmp_path) if layout == "parquet" else f"{shapes_dataset}/captions.jsonl"
    ending = "parquet" if layout == "parquet" else "jsonl"
    name = "out_step1/part-*.jsonl" if layout == "part files" else f"out.{ending}"
    alone, together = tmp_path / "alone", tmp_path / "together"
    single = evaluate(request(shapes_dataset, alone, input=source, output=f"{alone}/out.{ending}"))
    work = request(shapes_dataset, together, input=source, output=f"{together}/{name}")
    merged = in_shards(work)
    assert rows(together / "embeddings") == rows(alone / "embeddings")
    assert single.embeddings is not None
    assert merged.embeddings is not None
    counts = {"files", "rows", "dimensions", "dtype"}
    assert merged.embeddings.model_dump(include=counts) == single.embeddings.model_dump(include=counts)
    plan = plan_shards(work, Storage(), shards=3)
    assert plan.is_complete
    part = together / "embeddings" / "part-00002-of-00003-000000000000.parquet"
    part.unlink()
    assert not plan_shards(work, Storage(), shards=3).is_complete


def test_a_merge_wants_all_parts_of_all_shards_and_removes_those_of_others(
    shapes_dataset: Path, tmp_path: Path
) -> None:
    work = request(shapes_dataset, tmp_path)
    evaluate(work.model_copy(update={"embeddings_dtype": "float16"}))
    plan = plan_shards(work, Storage(), shards=3)
    for name in plan.names:
        evaluate(plan.shard_request(name, None))
    part = tmp_path / "embeddings" / "part-00002-of-00003-000000000000.parquet"
    kept = part.read_bytes()
    part.unlink()
    with pytest.raises(JobError, match="1 of 3 shards have no result that belongs to this plan: 00002-of-00003"):
        merge_shards(plan.uri, Storage(), None)
    evaluate(plan.shard_request("00002-of-00003", None))
    assert part.read_bytes() == kept
    merged = merge_shards(plan.uri, Storage(), None)
    assert merged.embeddings is not None
    assert [row["row"] for row in rows(tmp_path / "embeddings")] == list(range(ROWS))
    assert merged.embeddings.files == len(list((tmp_path / "embeddings").glob("*.parquet")))


def test_where_nobody_knows_the_first_row_of_a_shard_rows_are_counted_within_it(
    shapes_dataset: Path, tmp_path: Path
) -> None:
    lines = (shapes_dataset / "captions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "in").mkdir()
    for number, (start, stop) in enumerate([(0, 20), (20, 37), (37, ROWS)]):
        (tmp_path / "in" / f"{number}.jsonl").write_text("".join(lines[start:stop]))
    fields = {"input": f"{tmp_path}/in/"}
    evaluate(request(shapes_dataset, tmp_path / "alone", **fields))
    in_shards(request(shapes_dataset, tmp_path / "together", **fields))
    found, expected = rows(tmp_path / "together/embeddings"), rows(tmp_path / "alone/embeddings")
    assert [row.pop("row_in_shard") for row in found] == [*range(20), *range(17), *range(27)]
    assert [row.pop("row") for row in expected] == list(range(ROWS))
    for one, other in zip(found, expected, strict=True):
        for name in ("image_embedding", "text_embedding"):
            assert (one[name] is None) == (other[name] is None)
            if one[name] is not None:
                np.testing.assert_allclose(one[name], other[name], atol=1e-5)


def test_shards_of_another_output_do_not_come_to_a_folder_that_is_taken(shapes_dataset: Path, tmp_path: Path) -> None:
    evaluate(request(shapes_dataset, tmp_path))
    work = request(shapes_dataset, tmp_path, output=f"{tmp_path}/other.jsonl")
    with pytest.raises(JobError, match=r"those of .*out\.jsonl"):
        plan_shards(work, Storage(), shards=3)
    assert not list(tmp_path.glob("other*"))
    in_shards(work.model_copy(update={"overwrite": True}))
    assert [row["row"] for row in rows(tmp_path / "embeddings")] == list(range(ROWS))


def test_in_object_storage_shards_come_to_the_same(shapes_dataset: Path, tmp_path: Path, s3: S3) -> None:
    root = f"s3://{s3.bucket}/steps"
    in_shards(request(shapes_dataset, tmp_path))
    merged = in_shards(request(shapes_dataset, root), s3.storage)
    for part in (tmp_path / "embeddings").glob("part-*"):
        assert s3.get(f"{root}/embeddings/{part.name}") == part.read_bytes()
    assert evaluate(merged.request, s3.storage).started_at == merged.started_at


class Dies(Storage):
    """Fails at one change of what matches, as a process that is killed there would."""

    def __init__(self, suffix: str, *, after: bool = False) -> None:
        super().__init__()
        self._suffix, self._after = suffix, after

    def upload(self, path: Path, uri: str, *condition: Any) -> ObjectInfo:
        return self._at(uri, lambda: super(Dies, self).upload(path, uri, *condition))

    def write(self, data: bytes, uri: str, *condition: Any) -> ObjectInfo:
        return self._at(uri, lambda: super(Dies, self).write(data, uri, *condition))

    def _at(self, uri: str, change: Callable[[], ObjectInfo]) -> ObjectInfo:
        if uri.endswith(self._suffix) and not self._after:
            raise StorageError("the store is down")
        done = change()
        if uri.endswith(self._suffix):
            raise StorageError("the store is down")
        return done


@pytest.mark.parametrize(
    ("suffix", "after", "segments"),
    [
        ("part-000000000032.parquet", False, 2),
        ("part-000000000032.parquet", True, 2),
        ("000000000032.json", False, 2),
        ("000000000032.json", True, 3),
        ("out.jsonl", False, 4),
        ("out.jsonl.manifest.json", False, 4),
    ],
)
def test_a_run_that_dies_ends_with_the_files_of_one_that_did_not(
    shapes_dataset: Path, tmp_path: Path, suffix: str, after: bool, segments: int
) -> None:
    """In the middle of a segment, between its part and its resume point, and before the proof."""
    evaluate(request(shapes_dataset, tmp_path / "alone"))
    work = request(shapes_dataset, tmp_path / "dies")
    with pytest.raises(StorageError, match="the store is down"):
        evaluate(work, Dies(suffix, after=after))
    left = {part.name for part in (tmp_path / "dies/embeddings").glob("*.parquet")}
    assert "part-000000000016.parquet" in left
    manifest = evaluate(work)
    assert manifest.embeddings is not None
    assert manifest.rows.resumed == segments * SEGMENT - 2  # whose images may have come meanwhile
    alone = {part.name: part.read_bytes() for part in (tmp_path / "alone/embeddings").glob("part-*")}
    assert {part.name: part.read_bytes() for part in (tmp_path / "dies/embeddings").glob("part-*")} == alone


def test_a_segment_whose_part_is_gone_is_encoded_again(shapes_dataset: Path, tmp_path: Path) -> None:
    work = request(shapes_dataset, tmp_path)
    with pytest.raises(StorageError, match="the store is down"):
        evaluate(work, Dies("000000000032.json"))
    first, second = (tmp_path / "embeddings" / f"part-{row:012d}.parquet" for row in (0, 16))
    before = first.read_bytes()
    first.unlink()
    second.write_bytes(before)
    second.with_name(f".{second.name}.0123456789abcdef.partial").touch()  # a kill in the middle of its writing
    assert evaluate(work).rows.resumed == 0
    assert first.read_bytes() == before
    assert not list((tmp_path / "embeddings").glob(".*"))
    assert [row["row"] for row in rows(tmp_path / "embeddings")] == list(range(ROWS))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_row_that_is_tried_again_comes_to_its_embedding_and_the_others_keep_theirs(
    shapes_dataset: Path, tmp_path: Path, dtype: str
) -> None:
    data = Path(shutil.copytree(shapes_dataset, tmp_path / "data"))
    work = request(data, tmp_path, embeddings_dtype=dtype)
    with pytest.raises(StorageError, match="the store is down"):
        evaluate(work, Dies("000000000032.json"))
    late = 27
    before = rows(tmp_path / "embeddings")[:32]
    assert before[late]["image_embedding"] is None
    lines = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    shutil.copy(data / lines[0]["image_path"], data / lines[late]["image_path"])
    manifest = evaluate(work)
    assert manifest.rows.resumed == 30
    after = rows(tmp_path / "embeddings")
    np.testing.assert_allclose(after[late]["image_embedding"], after[0]["image_embedding"], atol=1e-3)
    assert after[:late] + after[late + 1 : 32] == before[:late] + before[late + 1 :]
    assert score_of(after[late]) == pytest.approx(scores(tmp_path / "out.jsonl")[late], abs=1e-3)


def test_a_part_that_was_forged_with_its_resume_point_is_not_taken_over(shapes_dataset: Path, tmp_path: Path) -> None:
    work = request(shapes_dataset, tmp_path)
    with pytest.raises(StorageError, match="the store is down"):
        evaluate(work, Dies("000000000032.json"))
    part = tmp_path / "embeddings" / "part-000000000016.parquet"
    pq.write_table(pa.table({"image_embedding": [[1.0]] * 16, "text_embedding": [[1.0]] * 16}), part)
    [point] = (tmp_path / "out.jsonl.resume").rglob("000000000016.json")
    told = json.loads(point.read_text())
    info = Storage().stat(str(part))
    told["embeddings"].update(size=info.size, etag=info.etag)
    point.write_text(json.dumps(told))
    with pytest.raises(JobError, match=r"part-000000000016\.parquet does not hold the embeddings"):
        evaluate(work)
