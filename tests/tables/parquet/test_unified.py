"""Part files whose columns differ become one table where every value stays, and are refused by name where not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import AddedType, create_table, file_type_of, join_parquet, open_table, unified_schema
from tests.tables.parquet.test_parquet import codecs

PARQUET = file_type_of("parquet")

# Types that go together, and what may stand in any of them.
FAMILIES: list[tuple[list[pa.DataType], st.SearchStrategy[Any]]] = [
    ([pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()], st.integers(0, 127)),
    (
        [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
        st.sampled_from(["", "a", "é"]),
    ),
    ([pa.binary(), pa.large_binary(), pa.binary_view()], st.sampled_from([b"", b"\xff"])),
    ([pa.list_(pa.int8()), pa.large_list(pa.int64())], st.lists(st.integers(-128, 127), max_size=2)),
    ([pa.struct([("x", pa.string())]), pa.struct([("x", pa.large_string())])], st.fixed_dictionaries({"x": st.text()})),
    ([pa.float64()], st.floats(allow_nan=False)),
    ([pa.timestamp("us", "UTC")], st.datetimes().map(lambda time: int(time.timestamp()))),
]


@st.composite
def parts(draw: st.DrawFn) -> list[pa.Table]:
    """Tables with some of the same columns, in any order, of types that go together; with nulls, without, or null."""
    columns = draw(st.lists(st.sampled_from(range(len(FAMILIES))), min_size=1, max_size=4))
    drawn = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(0, 3))
        fields, arrays = [], []
        for number in draw(st.permutations(range(len(columns)))):
            types, values = FAMILIES[columns[number]]
            kind = draw(st.sampled_from(["missing", "null", "nullable", "required"]))
            if kind == "missing":
                continue
            data_type = pa.null() if kind == "null" else draw(st.sampled_from(types))
            cells = st.none() if kind == "null" else values | st.none() if kind == "nullable" else values
            fields.append(pa.field(f"c{number}", data_type, kind != "required"))
            arrays.append(pa.array(draw(st.lists(cells, min_size=rows, max_size=rows)), data_type))
        if fields:
            drawn.append(pa.table(arrays, pa.schema(fields)))
    return drawn or [pa.table({"c0": pa.nulls(2)})]


def saved(folder: Path, tables: Sequence[pa.Table]) -> list[Path]:
    paths = [folder / f"part-{number}.parquet" for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path)
    return paths


def score(paths: Sequence[Path], target: Path, schema: pa.Schema | None = None) -> None:
    with (
        open_table(paths, PARQUET, schema=schema) as reader,
        create_table(target, PARQUET, reader, {"s": AddedType.FLOAT64}) as writer,
    ):
        for chunk in reader.chunks(2):
            writer.write(chunk, {"s": [0.5] * len(chunk)})


def read(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read()


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tables=parts(), data=st.data())
def test_no_value_is_lost_or_altered_and_shards_have_the_columns_of_the_whole(
    tmp_path: Path, tables: list[pa.Table], data: st.DataObject
) -> None:
    paths = saved(tmp_path, tables)
    score(paths, tmp_path / "whole.parquet")
    whole = read(tmp_path / "whole.parquet")
    assert whole.drop_columns("s").to_pylist() == [
        {name: row.get(name) for name in whole.schema.names[:-1]} for table in tables for row in table.to_pylist()
    ]
    assert set(whole.schema.names[:-1]) == {name for table in tables for name in table.schema.names}
    assert whole.schema.names[: tables[0].num_columns] == tables[0].schema.names

    named = [(path.name, pq.read_schema(path)) for path in paths]
    schema, telling = unified_schema(named)
    assert unified_schema(named[index] for index in telling)[0].equals(schema, check_metadata=True)
    cut = data.draw(st.integers(0, len(paths)))
    shards = [tmp_path / f"shard-{number}.parquet" for number in range(2)]
    for shard, some in zip(shards, (paths[:cut] or paths[:1], paths[cut:] or paths[:1]), strict=True):
        score(some, shard, schema)
        assert read(shard).schema.equals(whole.schema, check_metadata=True)
    if 0 < cut < len(paths):
        join_parquet(shards, tmp_path / "joined.parquet")
        assert read(tmp_path / "joined.parquet").equals(whole, check_metadata=True)


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.int64(), pa.int8(), pa.int64()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.int64(), pa.uint32(), pa.int64()),
        (pa.null(), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int16(), pa.string()), None),
        (pa.list_(pa.int8()), pa.large_list(pa.null()), pa.list_(pa.int8())),
        (pa.struct([("x", pa.int8())]), pa.struct([("x", pa.int32())]), pa.struct([("x", pa.int32())])),
    ],
    ids=str,
)
def test_the_common_type_is_the_least_that_holds_both(
    first: pa.DataType, second: pa.DataType, common: pa.DataType | None
) -> None:
    schema, telling = unified_schema([("one", pa.schema({"a": first})), ("two", pa.schema({"a": second}))])
    assert schema.field("a").type == (common or second)
    assert telling == ([0] if common == first else [0, 1])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.int64(), pa.float64()),
        (pa.int64(), pa.uint64()),
        (pa.float32(), pa.float64()),
        (pa.string(), pa.binary()),
        (pa.int64(), pa.string()),
        (pa.timestamp("ms"), pa.timestamp("ns")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us")),
        (pa.struct([("x", pa.int8())]), pa.struct([("y", pa.int8())])),
        (pa.list_(pa.int8()), pa.int8()),
    ],
    ids=str,
)
def test_types_that_do_not_go_together_are_refused_with_both_files_and_types(
    tmp_path: Path, first: pa.DataType, second: pa.DataType
) -> None:
    tables = [pa.table({"a": pa.nulls(1)}), pa.table({"a": pa.nulls(1, first)}), pa.table({"a": pa.nulls(1, second)})]
    paths = saved(tmp_path, tables)
    first, second = (pq.read_schema(path).field("a").type for path in paths[1:])
    for refused in (
        lambda: open_table(paths, PARQUET),
        lambda: join_parquet(paths, tmp_path / "out.parquet"),
    ):
        with pytest.raises(JobError) as caught:
            refused()
        expected = f"part-2.parquet has other columns than part-1.parquet: the column 'a' is {second}, not {first}. "
        assert str(caught.value).startswith(expected)
    assert not (tmp_path / "out.parquet").exists()


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / "n=1" / "x=a" / "part.parquet", tmp_path / "n=2" / "x=a" / "part.parquet"]
    for path, values in zip(paths, ([1], ["a"]), strict=True):
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"a": values}), path)
    with pytest.raises(JobError, match=r"^n=2/x=a/part.parquet has other columns than n=1/x=a/part.parquet: "):
        open_table(paths, PARQUET)


def test_how_columns_are_written_is_taken_from_the_first_file_that_has_them(tmp_path: Path) -> None:
    first, second = tmp_path / "one.parquet", tmp_path / "two.parquet"
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), first, compression="gzip")
    pq.write_table(pa.table({"c": [1], "b": ["x"]}), second, compression="zstd", use_dictionary=False)
    score([first, second], tmp_path / "out.parquet")
    assert codecs(tmp_path / "out.parquet") == {"a": "GZIP", "b": "GZIP", "c": "ZSTD", "s": "UNCOMPRESSED"}
    group = pq.read_metadata(tmp_path / "out.parquet").row_group(0)
    assert [any("DICTIONARY" in encoding for encoding in group.column(n).encodings) for n in range(3)] == [
        *(True, True),
        False,
    ]


def features(**types: str) -> dict[str, str]:
    described = {name: {"dtype": dtype, "_type": "Value"} for name, dtype in types.items()}
    return {"huggingface": json.dumps({"info": {"features": described}})}


@pytest.mark.parametrize(
    ("second", "metadata", "told"),
    [
        (pa.table({"a": [2]}), features(a="int64"), {"a", "s"}),
        (pa.table({"a": [2], "b": ["x"]}), features(a="int64", b="string"), {"a", "b", "s"}),
        (pa.table({"a": [2], "b": ["x"]}), {}, None),
    ],
)
def test_the_feature_types_of_hugging_face_are_those_of_all_columns_or_none(
    tmp_path: Path, second: pa.Table, metadata: dict[str, str], told: set[str] | None
) -> None:
    tables = [
        pa.table({"a": [1]}).replace_schema_metadata(features(a="int64")),
        second.replace_schema_metadata(metadata),
    ]
    score(saved(tmp_path, tables), tmp_path / "out.parquet")
    kept = (pq.read_schema(tmp_path / "out.parquet").metadata or {}).get(b"huggingface")
    assert (None if kept is None else set(json.loads(kept)["info"]["features"])) == told
