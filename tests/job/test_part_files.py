"""Whole evaluations of part files that differ, in one piece and in shards."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import ShardPlan, merge_shards, plan_shards
from clip_operator.storage import Storage
from tests.conftest import SHAPES
from tests.job.test_inputs import picture


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        (folder / f"{number}.png").write_bytes(picture(number))
    return folder


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Part files whose columns differ as those of several writers do; two rows in each."""
    types = [
        {"image_path": pa.string(), "text": pa.string(), "n": pa.int8(), "source": pa.null()},
        {"n": pa.int64(), "text": pa.large_string(), "image_path": pa.large_string(), "source": pa.string()},
        {"image_path": pa.string(), "text": pa.string_view(), "width": pa.float32()},
    ]
    (tmp_path / "parts").mkdir()
    for part, columns in enumerate(types):
        own = [row | {"n": 7, "width": 1.5} for row in rows(2 * part, 2 * part + 2)]
        table = pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in own], pa.schema(columns))
        pq.write_table(table, tmp_path / "parts" / f"part-{part}.parquet")
    return tmp_path / "parts"


def rows(start: int, stop: int) -> Iterator[dict[str, Any]]:
    return ({"image_path": f"{number}.png", "text": f"a shape, number {number}"} for number in range(start, stop))


def request(source: Path, output: Path, images: Path, **fields: Any) -> EvaluationRequest:
    wanted = {"input": f"{source}/", "output": str(output), "image_root": str(images), "model": SHAPES}
    return parse_request({**wanted, **fields})


def scored(plan: ShardPlan) -> None:
    for name in plan.names:
        evaluate(plan.shard_request(name, None))
    merge_shards(plan.uri, Storage(), None)


def read(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read()


def test_part_files_that_differ_are_one_table_whoever_scores_them(parts: Path, images: Path, tmp_path: Path) -> None:
    evaluate(request(parts, tmp_path / "single.parquet", images))
    single = read(tmp_path / "single.parquet")
    assert single.schema.names == ["image_path", "text", "n", "source", "width", "clip_score"]
    assert single["n"].to_pylist() == [7, 7, 7, 7, None, None]
    assert single["text"].to_pylist() == [row["text"] for row in rows(0, 6)]
    plan = plan_shards(request(parts, tmp_path / "out.parquet", images), Storage(), shards=3)
    assert plan.columns_of == (0, 1, 2)
    scored(plan)
    assert read(tmp_path / "out.parquet").equals(single, check_metadata=True)


def test_each_part_of_a_step_has_all_columns_and_is_rescored_as_it_is(
    parts: Path, images: Path, tmp_path: Path
) -> None:
    hidden = images / "3.png"
    hidden.rename(images / "hidden.png")
    wanted = request(parts, tmp_path / "step" / "part-*.parquet", images, max_error_rate=1)
    try:
        scored(plan_shards(wanted, Storage(), shards=3))
    finally:
        (images / "hidden.png").rename(hidden)
    before = [read(path) for path in sorted((tmp_path / "step").glob("part-*.parquet"))]
    assert [table["clip_score"].null_count for table in before] == [0, 1, 0]
    scored(plan_shards(wanted.model_copy(update={"rescore": "failed"}), Storage(), shards=3))
    after = [read(path) for path in sorted((tmp_path / "step").glob("part-*.parquet"))]
    assert [table["clip_score"].null_count for table in after] == [0, 0, 0]
    assert all(table.schema.equals(before[0].schema) for table in (*before, *after))
    for old, new in zip(before, after, strict=True):
        assert new.drop_columns("clip_score").equals(old.drop_columns("clip_score"))


def test_files_that_do_not_go_together_are_refused_before_anything_is_planned(
    parts: Path, images: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"image_path": ["0.png"], "text": ["x"], "n": [0.5]}), parts / "part-3.parquet")
    with pytest.raises(JobError) as caught:
        plan_shards(request(parts, tmp_path / "out.parquet", images), Storage(), shards=2)
    assert str(caught.value).startswith(
        f"{parts}/part-3.parquet has other columns than {parts}/part-1.parquet: the column 'n' is double, not int64. "
    )
    assert not (tmp_path / "out.parquet.shards").exists()


@pytest.mark.parametrize(("files", "ending"), [("jsonl", "jsonl"), ("parquet", "parquet"), ("tar", "jsonl")])
def test_a_column_of_the_folders_can_be_the_caption_and_stays_in_the_step(
    images: Path, tmp_path: Path, files: str, ending: str
) -> None:
    for number in range(3):
        folder = tmp_path / "t" / f"caption=a shape, number {number}"
        folder.mkdir(parents=True)
        if files == "tar":
            with tarfile.open(folder / "part.tar", "w") as tar:
                tar.add(images / f"{number}.png", "0.png")
        elif files == "parquet":
            pq.write_table(pa.table({"image_path": [f"{number}.png"]}), folder / "part.parquet")
        else:
            (folder / "part.jsonl").write_text(f'{{"image_path": "{number}.png"}}\n')
    outputs = [tmp_path / f"{name}.{ending}" for name in ("single", "out")]
    single = evaluate(request(tmp_path / "t", outputs[0], images, input_text_key="caption"))
    assert (single.rows.total, single.rows.scored) == (3, 3)
    scored(plan_shards(request(tmp_path / "t", outputs[1], images, input_text_key="caption"), Storage(), shards=3))
    if ending == "parquet":
        assert read(outputs[0]).equals(read(outputs[1]), check_metadata=True)
        captions = read(outputs[0])["caption"].to_pylist()
    else:
        assert outputs[0].read_bytes() == outputs[1].read_bytes()
        captions = [json.loads(line)["caption"] for line in outputs[0].read_text().splitlines()]
    assert captions == [f"a shape, number {number}" for number in range(3)]
