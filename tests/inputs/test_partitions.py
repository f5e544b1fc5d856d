"""Folders such as ``lang=en/`` are columns of the files in them, in every format and in every shard."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.inputs import LocalInput, find_input
from clip_operator.storage import Storage
from clip_operator.tables import AddedType, create_table, file_type_of, join_parquet
from tests.conftest import S3
from tests.inputs.test_shards import fetched, shards_of, tar, text_of


def put(folder: Path, name: str, texts: Sequence[str], **columns: Sequence[Any]) -> None:
    """Write a file with a row for each text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(
            pa.table({"image_path": ["x.png"] * len(texts), "text": pa.array(texts, "str"), **columns}), path
        )
    elif name.endswith(".tar"):
        path.write_bytes(tar(texts))
    else:
        path.write_bytes(text_of(path.name.partition(".")[2], texts))


def column(local: LocalInput, name: str) -> list[object]:
    with local.open([name]) as table:
        assert name in table.scan().columns
        return [value for chunk in table.chunks(2) for value in chunk.column(name)]


@pytest.mark.parametrize(
    ("folders", "values", "data_type"),
    [
        (["n=1", "n=20"], [1, 20], AddedType.INT64),
        (["n=-1", "n=0"], [-1, 0], AddedType.INT64),
        (["n=1", "n=__HIVE_DEFAULT_PARTITION__"], [1, None], AddedType.INT64),
        (["n=__HIVE_DEFAULT_PARTITION__"], [None], AddedType.STRING),
        (["n=01", "n=02"], ["01", "02"], AddedType.STRING),
        (["n=1", "n=x"], ["1", "x"], AddedType.STRING),
        (["n=1.0"], ["1.0"], AddedType.STRING),
        (["n="], [""], AddedType.STRING),
        (["n=-0"], ["-0"], AddedType.STRING),
        (["n=99999999999999999999"], ["99999999999999999999"], AddedType.STRING),
        (["n=2024-01-01"], ["2024-01-01"], AddedType.STRING),
        (["n=a%2Fb%3Dc%20%C3%A9"], ["a/b=c \u00e9"], AddedType.STRING),
        (["n=a=b"], ["a=b"], AddedType.STRING),
        (["other/n=1"], [1], AddedType.INT64),
    ],
)
def test_a_value_is_a_number_if_all_are_spelled_as_one(
    tmp_path: Path, folders: list[str], values: list[object], data_type: AddedType
) -> None:
    for folder in folders:
        put(tmp_path / "t", f"{folder}/part.jsonl", ["x"])
    given = find_input(Storage(), f"{tmp_path}/t/")
    assert given.partitions is not None
    assert dict(given.partitions.types) == {"n": data_type}
    assert [value for [value] in given.partitions.values] == values
    assert find_input(Storage(), f"file://{tmp_path}/t/").partitions is not None
    assert column(given.fetch(tmp_path / "work"), "n") == values


def test_a_folder_without_columns_and_a_pattern_have_none(tmp_path: Path) -> None:
    put(tmp_path, "a=1/deeper/part.jsonl", ["x"])
    put(tmp_path, "=1/part.jsonl", ["x"])
    assert find_input(Storage(), f"{tmp_path}/a=1/").partitions is None
    assert find_input(Storage(), f"{tmp_path}/a=1/deeper/*.jsonl").partitions is None
    assert find_input(Storage(), f"{tmp_path}/=1/").partitions is None


def test_a_column_that_begins_with_an_underscore_is_not_hidden(tmp_path: Path) -> None:
    put(tmp_path, "_year=2024/part.jsonl", ["x"])
    put(tmp_path, "_temporary/0/part.jsonl", ["y"])
    assert column(find_input(Storage(), f"{tmp_path}/").fetch(tmp_path / "work"), "_year") == [2024]


def test_keys_in_a_store_are_decoded_once(s3: S3, tmp_path: Path) -> None:
    s3.put("t/n=a%2520b/part.jsonl", text_of("jsonl", ["x"]))
    given = find_input(s3.storage, f"s3://{s3.bucket}/t/")
    assert column(given.fetch(tmp_path), "n") == ["a%20b"]


def score(local: LocalInput, target: Path) -> None:
    added = {"s": AddedType.FLOAT64}
    with (
        local.open(["text"]) as table,
        create_table(target, file_type_of(target.name), table, added, fragment=local.fragment) as new,
    ):
        table.scan()
        for chunk in table.chunks(2):
            new.write(chunk, {"s": [0.5] * len(chunk)})


def rows_in(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            return list(file.read().to_pylist())
    if path.suffix == ".csv":
        return list(csv.DictReader(path.read_text().removeprefix("\ufeff").splitlines()))
    return [json.loads(line) for line in path.read_text().splitlines()]


FOLDERS: Sequence[Mapping[str, object]] = [{"lang": lang, "n": n} for lang in ("de", "en", "a, b") for n in (1, 2)]


@pytest.mark.parametrize(
    ("ending", "target"),
    [
        *(("jsonl", "jsonl"), ("jsonl.gz", "jsonl"), ("json", "jsonl"), ("csv", "csv"), ("csv", "jsonl")),
        *(("tar", "jsonl"), ("parquet", "parquet"), ("tar", "parquet")),
    ],
)
@settings(max_examples=12, deadline=None, derandomize=True)
@drawn(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_every_row_has_the_columns_of_its_folders_alone_and_in_shards(
    ending: str, target: str, sizes: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        top, expected = Path(name), []
        for number, (size, columns) in enumerate(zip(sizes, FOLDERS, strict=False)):
            texts = [f"text {number}.{row}" for row in range(size)]
            put(top / "t", "/".join(f"{key}={value}" for key, value in columns.items()) + f"/part.{ending}", texts)
            expected += [(text, columns["lang"], columns["n"]) for text in texts]
        given = find_input(Storage(), f"{top}/t/")
        score(given.fetch(top / "whole"), top / f"whole.{target}")
        whole = rows_in(top / f"whole.{target}")
        number_of = str if target == "csv" else int
        found = [(row["text"], row["lang"], row["n"]) for row in whole]
        assert sorted(found) == sorted((text, lang, number_of(str(n))) for text, lang, n in expected)
        assert all(list(row)[-3:] == ["lang", "n", "s"] for row in whole)
        outputs = []
        for shard in shards_of(given, 1):
            outputs.append(top / f"{shard.index}.{target}")
            score(given.fetch(top / str(shard.index), shard), outputs[-1])
        if target == "parquet":
            join_parquet(outputs, top / "joined.parquet")
            assert pq.ParquetFile(top / "joined.parquet").read().equals(pq.ParquetFile(top / "whole.parquet").read())
        else:
            assert b"".join(path.read_bytes() for path in outputs) == (top / f"whole.{target}").read_bytes()


def test_the_text_of_a_row_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "t" / "lang=en").mkdir(parents=True)
    (tmp_path / "t" / "lang=en" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a" : 1.0e2,\t"text":"\\u00e9"}\r\n'))
    score(find_input(Storage(), f"{tmp_path}/t/").fetch(tmp_path / "work"), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"a" : 1.0e2,\t"text":"\\u00e9",\t"lang":"en",\t"s":0.5}\r\n'


def test_files_in_folders_of_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path, "lang=en/part.jsonl", ["x"])
    put(tmp_path, "old.jsonl", ["x"])
    with pytest.raises(JobError) as caught:
        find_input(Storage(), f"{tmp_path}/")
    first, second = f"{tmp_path}/lang=en/part.jsonl", f"{tmp_path}/old.jsonl"
    assert f"{second} lies in folders of the columns (none), and {first} in those of (lang), " in str(caught.value)
    put(tmp_path, "lang=en/lang=de/part.jsonl", ["x"])
    with pytest.raises(JobError, match=r"lang=en/lang=de/part.jsonl lies in two folders of the column 'lang'"):
        find_input(Storage(), f"{tmp_path}/")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_column_of_the_files_stays_where_it_is_if_it_agrees(tmp_path: Path, ending: str) -> None:
    for text in ("de", "en"):
        put(tmp_path / "t", f"text={text}/part.{ending}", [text] * 3)
    local = find_input(Storage(), f"{tmp_path}/t/").fetch(tmp_path / "work")
    score(local, tmp_path / f"out.{ending}")
    rows = rows_in(tmp_path / f"out.{ending}")
    assert [row["text"] for row in rows] == ["de"] * 3 + ["en"] * 3
    assert list(rows[0])[-1] == "s"
    put(tmp_path / "t", f"text=en/part.{ending}", ["en", "EN", "en"])
    local = find_input(Storage(), f"{tmp_path}/t/").fetch(tmp_path / "again")
    with local.open() as table, pytest.raises(JobError) as caught:
        table.scan()
    assert str(caught.value).startswith(
        f"text=en/part.{ending}: row 2 has another value in its column 'text' than its folder says, which is 'en'. "
    )


@pytest.mark.parametrize(
    ("folder", "value", "agrees"),
    [
        ("n=01", 1, True),
        ("n=01", 2, False),
        ("n=x", 1, False),
        ("n=true", True, True),
        ("n=1", True, False),
        ("n=1.5", 1.5, True),
        ("n=__HIVE_DEFAULT_PARTITION__", None, True),
        ("n=1", None, False),
        ("n=__HIVE_DEFAULT_PARTITION__", 1, False),
    ],
)
def test_values_agree_that_say_the_same(tmp_path: Path, folder: str, value: object, agrees: bool) -> None:
    put(tmp_path / "t", f"{folder}/part.parquet", ["x"], n=[value])
    with find_input(Storage(), f"{tmp_path}/t/").fetch(tmp_path / "work").open() as table:
        if agrees:
            assert table.scan().columns == ("image_path", "text", "n")
        else:
            with pytest.raises(JobError, match="has another value in its column 'n'"):
                table.scan()


def test_rows_are_fetched_whatever_their_folders_are_called(tmp_path: Path) -> None:
    put(tmp_path / "t", f"n={'x' * 250}/{'y' * 240}.jsonl", ["x"])
    assert fetched(find_input(Storage(), f"{tmp_path}/t/")) == [("0.png", "x")]
