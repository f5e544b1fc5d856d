"""Of a table of Delta Lake's the live files are read, with their partitions, and nothing else."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from clip_operator.errors import JobError
from clip_operator.inputs import delta, find_input
from clip_operator.inputs.input import Input
from clip_operator.job.evaluation import evaluate
from clip_operator.request import parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import ObjectNotFound, Storage
from tests.conftest import S3, SHAPES
from tests.inputs.test_shards import fetched, shards_of

ROWS = {"image_path": [f"{number}.png" for number in range(6)], "text": [f"text {number}" for number in range(6)]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "table"


def append(folder: Path, rows: slice, mode: Any = "append", **columns: Sequence[Any]) -> None:
    table = pa.table({name: values[rows] for name, values in ROWS.items()} | columns)
    write_deltalake(folder, table, mode=mode, partition_by=list(columns) or None, schema_mode="merge")


def texts(source: Input) -> set[object]:
    return {text for _, text in fetched(source)}


def column(source: Input, name: str, folder: Path) -> dict[object, object]:
    with source.fetch(folder).open(["text", name]) as table:
        return {
            text: value
            for chunk in table.chunks(100)
            for text, value in zip(chunk.column("text"), chunk.column(name), strict=True)
        }


def edited(folder: Path, change: Mapping[str, Any]) -> None:
    """Change what the first entry of the log says, by the kind of its lines."""
    log = folder / "_delta_log/00000000000000000000.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        for kind, fields in change.items():
            if kind in line:
                line[kind].update(fields)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_rows_that_were_deleted_and_overwritten_do_not_come_back(folder: Path) -> None:
    append(folder, slice(0, 2))
    append(folder, slice(2, 4))
    DeltaTable(folder).delete("text = 'text 2'")
    assert texts(find_input(Storage(), f"{folder}/")) == {"text 0", "text 1", "text 3"}
    append(folder, slice(4, 6), mode="overwrite")
    assert texts(find_input(Storage(), f"{folder}/")) == {"text 4", "text 5"}
    assert len(list(folder.glob("*.parquet"))) == 4, "the dead files are there still"


@pytest.mark.parametrize("since", ["the beginning", "a checkpoint", "a checkpoint whose history is gone"])
def test_a_log_is_read_from_its_last_checkpoint_on(folder: Path, since: str) -> None:
    for row in range(5):
        append(folder, slice(row, row + 1))
    DeltaTable(folder).delete("text = 'text 1'")
    if since != "the beginning":
        DeltaTable(folder).create_checkpoint()
    if since.endswith("gone"):
        for old in sorted(folder.glob("_delta_log/*.json"))[:-1]:
            old.unlink()
    append(folder, slice(5, 6))
    assert texts(find_input(Storage(), f"{folder}/")) == {f"text {row}" for row in (0, 2, 3, 4, 5)}


def test_partitions_are_columns_as_the_log_says_them(folder: Path, tmp_path: Path) -> None:
    day = datetime.date(2024, 1, 2)
    languages = ["e n/\N{LATIN SMALL LETTER U WITH DIAERESIS}", "d=e%20", None]
    append(folder, slice(0, 3), lang=languages, n=[1, -2, None], day=[day] * 3, good=[True, False, None])
    source = find_input(Storage(), f"{folder}/")
    expected: dict[str, Sequence[object]] = {
        "lang": languages,
        "n": [1, -2, None],
        "day": ["2024-01-02"] * 3,
        "good": ["true", "false", None],
    }
    for name, values in expected.items():
        (tmp_path / name).mkdir()
        assert column(source, name, tmp_path / name) == dict(zip(ROWS["text"], values, strict=False))


def test_a_column_that_came_later_is_null_before(folder: Path, tmp_path: Path) -> None:
    append(folder, slice(0, 1))
    later = pa.table({"image_path": ["x"], "text": ["y"], "more": [1]})
    write_deltalake(folder, later, mode="append", schema_mode="merge")
    assert column(find_input(Storage(), f"{folder}/"), "more", tmp_path) == {"text 0": None, "y": 1}


def test_a_table_in_s3_is_scored_alone_and_in_shards(shapes_dataset: Path, folder: Path, s3: S3) -> None:
    rows = [json.loads(line) for line in (shapes_dataset / "captions.jsonl").read_text().splitlines()][:12]
    for start in range(0, 12, 4):
        some = rows[start : start + 4]
        table = pa.table({name: [row[name] for row in some] for name in ("image_path", "text")} | {"part": [start] * 4})
        write_deltalake(folder, table, mode="append", partition_by=["part"])
    DeltaTable(folder).delete("part = 4")
    root = s3.put_folder(folder, "table")
    s3.put_folder(shapes_dataset / "images", "data/images")
    fields = {"input": f"{root}/", "model": SHAPES, "image_root": f"s3://{s3.bucket}/data", "output_key": "score"}
    single = parse_request({**fields, "output": f"s3://{s3.bucket}/single.parquet"})
    evaluate(single, s3.storage)
    plan = plan_shards(single.model_copy(update={"output": f"s3://{s3.bucket}/sharded.parquet"}), s3.storage, shards=2)
    for name in plan.names:
        evaluate(plan.shard_request(name, None), s3.storage)
    merge_shards(plan.uri, s3.storage, None)
    tables = []
    for output in ("single", "sharded"):
        (folder / "out.parquet").write_bytes(s3.get(f"s3://{s3.bucket}/{output}.parquet"))
        tables.append(pq.read_table(folder / "out.parquet").to_pydict())
    assert tables[0]["part"] == [0] * 4 + [8] * 4
    assert set(tables[0]["text"]) == {row["text"] for row in (*rows[:4], *rows[8:])}
    assert tables[0].pop("score") == pytest.approx(tables[1].pop("score"), abs=1e-6)
    assert tables[0] == tables[1]


def test_another_version_of_the_table_is_another_input(folder: Path) -> None:
    append(folder, slice(0, 2))
    append(folder, slice(2, 4))
    planned = find_input(Storage(), f"{folder}/")
    shard = shards_of(planned, 100)[0]
    DeltaTable(folder).delete("text = 'text 1'")
    with pytest.raises(JobError, match="changed since the step was planned"):
        find_input(Storage(), f"{folder}/").fetch(folder.parent / "x", shard)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"metaData": {"configuration": {"delta.columnMapping.mode": "name"}}}, "mapped columns, which is not read"),
        ({"add": {"path": "../elsewhere.parquet"}}, r"names the file '\.\./elsewhere\.parquet', which is not below"),
        ({"add": {"path": "s3://other/part.parquet"}}, "which is not below the folder"),
        ({"add": {"path": "/etc/passwd"}}, "which is not below the folder"),
        ({"add": {"path": "gone.parquet"}}, "names the file 'gone.parquet', which is not below the folder"),
        ({"protocol": {"minReaderVersion": 9}}, "cannot be read|is not read here"),
        (
            {
                "protocol": {
                    "minReaderVersion": 3,
                    "minWriterVersion": 7,
                    "readerFeatures": ["deletionVectors"],
                    "writerFeatures": ["deletionVectors"],
                },
                "add": {
                    "deletionVector": {
                        "storageType": "i", "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
                        "sizeInBytes": 40, "cardinality": 6,
                    }
                },
            },
            "deletion vectors|cannot be read",
        ),
    ],
)  # fmt: skip
def test_what_would_give_other_rows_is_refused(folder: Path, change: dict[str, Any], problem: str) -> None:
    append(folder, slice(0, 2))
    edited(folder, change)
    with pytest.raises(JobError, match=problem):
        find_input(Storage(), f"{folder}/")


def test_a_log_that_is_no_log_or_too_long_is_refused_in_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(folder, slice(0, 2))
    append(folder, slice(2, 4))
    monkeypatch.setattr(delta, "_MOST_FILES", 1)
    with pytest.raises(JobError, match=r"has 2 files with .* since its last checkpoint, more than the 1 "):
        find_input(Storage(), f"{folder}/")
    monkeypatch.undo()
    shutil.copy(folder / "_delta_log/00000000000000000001.json", folder / "_delta_log/00000000000000000003.json")
    (folder / "_delta_log/00000000000000000000.json").write_text("hunter2")
    with pytest.raises(JobError, match="the log of this table of Delta Lake's cannot be read") as told:
        find_input(Storage(), f"{folder}/")
    assert "hunter2" not in str(told.value)


def test_a_table_without_rows_is_named(folder: Path) -> None:
    append(folder, slice(0, 2))
    DeltaTable(folder).delete()
    with pytest.raises(ObjectNotFound, match="is a table of Delta Lake's without rows"):
        find_input(Storage(), f"{folder}/")
