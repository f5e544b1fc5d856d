"""Parquet in and out: Arrow sees the same columns, types, metadata and row groups, and one column more."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import (
    AddedType,
    TableScan,
    UnreadableValue,
    create_table,
    file_type_of,
    open_table,
)
from clip_operator.tables.parquet import reader as reader_module
from clip_operator.tables.parquet import writer as writer_module
from tests.tables.rewriting import rewrite, rewritten

TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.datetimes()

# Each Arrow type with the values it is filled with.
COLUMNS: dict[pa.DataType, st.SearchStrategy[object]] = {
    pa.int64(): INT64,
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.int8(): st.integers(-128, 127),
    pa.bool_(): st.booleans(),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float16(): st.floats(width=16, allow_nan=False),
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.binary(): st.binary(max_size=5),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.decimal128(38, 10): st.decimals(-(10**20), 10**20, places=10),
    pa.decimal128(5, 2): st.decimals(-999, 999, places=2),
    pa.timestamp("us"): TIMES,
    pa.timestamp("ms", "Europe/Paris"): st.integers(-(10**13), 10**13),
    pa.timestamp("ns"): st.integers(-(2**62), 2**62),
    pa.date32(): st.dates(),
    pa.time64("us"): st.times(),
    pa.duration("ms"): st.integers(-(10**12), 10**12),
    pa.null(): st.none(),
    pa.dictionary(pa.int32(), pa.string()): TEXT,
    pa.dictionary(pa.int8(), pa.binary()): st.binary(max_size=2),
    pa.list_(pa.int32()): st.lists(st.none() | st.integers(0, 9), max_size=3),
    pa.list_(pa.dictionary(pa.int32(), pa.string())): st.lists(TEXT, max_size=3),
    pa.list_(pa.float32(), 2): st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2),
    pa.large_list(pa.string()): st.lists(TEXT, max_size=3),
    pa.map_(pa.string(), pa.int64()): st.dictionaries(TEXT, INT64, max_size=2).map(
        lambda mapping: list(mapping.items())
    ),
    pa.struct({"bytes": pa.binary(), "path": pa.string(), "deep": pa.list_(pa.struct({"x.y": pa.int8()}))}): (
        st.fixed_dictionaries(
            {
                "bytes": st.none() | st.binary(max_size=5),
                "path": TEXT,
                "deep": st.none() | st.lists(st.fixed_dictionaries({"x.y": st.integers(0, 9)}), max_size=2),
            }
        )
    ),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table of some of the types above; columns with nulls and columns that cannot have any, with metadata."""
    rows = draw(st.integers(0, 12))
    fields, arrays = [], []
    for number, data_type in enumerate(draw(st.lists(st.sampled_from(list(COLUMNS)), max_size=5))):
        nullable = draw(st.booleans()) or data_type == pa.null()
        values = COLUMNS[data_type] | st.none() if nullable else COLUMNS[data_type]
        name = draw(st.sampled_from([f"c{number}", f"a.b{number}", f"é {number}"]))
        fields.append(pa.field(name, data_type, nullable, draw(st.sampled_from([None, {"unit": "px"}]))))
        arrays.append(pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), data_type))
    if not fields:
        fields, arrays = [pa.field("id", pa.int64())], [pa.array(range(rows), pa.int64())]
    return pa.table(arrays, pa.schema(fields, draw(st.sampled_from([None, {"owner": "me"}]))))


TEXTS = ["a red circle", None, "a red square", "é", ""]


def in_encoding(path: str, encoding: str) -> dict[str, Any]:
    """Options of the writer that give a column this encoding, as parquet-java and DuckDB give it to texts."""
    return {"use_dictionary": False, "column_encoding": {path: encoding}}


def row_groups(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def codecs(path: Path) -> dict[str, str]:
    group = pq.read_metadata(path).row_group(0)
    return {group.column(index).path_in_schema: group.column(index).compression for index in range(group.num_columns)}


@settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    table=tables(),
    group_rows=st.integers(1, 13),
    chunk=st.integers(1, 14),
    compression=st.sampled_from(["snappy", "zstd", "none", "gzip", "lz4", "brotli"]),
    store_schema=st.booleans(),
)
def test_only_the_new_columns_are_added(
    tmp_path: Path, table: pa.Table, group_rows: int, chunk: int, compression: str, store_schema: bool
) -> None:
    source, target = tmp_path / "t.parquet", tmp_path / "out.parquet"
    pq.write_table(table, source, group_rows, compression=compression, store_schema=store_schema)
    old = pq.read_table(source)
    scores = [None if row % 3 == 2 else row / 7 for row in range(table.num_rows)]
    errors = [None if row % 3 else "text_empty" for row in range(table.num_rows)]

    rewrite(source, target, {"clip_score": scores, **({"clip_error": errors} if errors else {})}, chunk)

    new = pq.read_table(target)
    assert new.select(range(len(old.schema))).equals(old, check_metadata=True)
    assert (new.schema.metadata or {}) == (old.schema.metadata or {})
    assert new.column("clip_score").type == pa.float64()
    assert new.column("clip_score").to_pylist() == scores
    if errors:
        assert new.column("clip_error").type == pa.string()
        assert new.column("clip_error").to_pylist() == errors
    assert row_groups(target) == row_groups(source)
    assert old.num_rows == 0 or codecs(source).items() <= codecs(target).items()


def test_codecs_and_dictionaries_stay_column_by_column(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", "x"], "b": ["x", "x"], "l": [[1], [2]], "s": [{"i": 1, "j": "x"}] * 2})
    source = tmp_path / "t.parquet"
    compression = {"a": "zstd", "b": "none", "l.list.element": "gzip", "s.i": "snappy", "s.j": "brotli"}
    pq.write_table(table, source, compression=compression, use_dictionary=["b", "s.j"])
    rewrite(source, tmp_path / "out.parquet", {"clip_score": [0.5, 0.25]})
    assert codecs(source).items() <= codecs(tmp_path / "out.parquet").items()
    group = pq.read_metadata(tmp_path / "out.parquet").row_group(0)
    with_dictionary = {
        group.column(index).path_in_schema for index in range(5) if group.column(index).has_dictionary_page
    }
    assert with_dictionary == {"b", "s.j"}


def test_codecs_stay_where_the_writer_named_the_items_of_lists_otherwise(tmp_path: Path) -> None:
    table = pa.table({"l": pa.array([[1], [2]], pa.list_(pa.field("item", pa.int64())))})
    source = tmp_path / "t.parquet"
    pq.write_table(table, source, compression="zstd", use_compliant_nested_type=False)
    rewrite(source, tmp_path / "out.parquet", {"clip_score": [0.5, 0.25]})
    assert list(codecs(source)) == ["l.list.item"]
    assert codecs(tmp_path / "out.parquet")["l.list.element"] == "ZSTD"


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
@pytest.mark.parametrize("values", [TEXTS, [text.encode() for text in TEXTS if text]], ids=["texts", "bytes"])
def test_texts_as_newer_writers_encode_them_are_read(tmp_path: Path, encoding: str, values: list[object]) -> None:
    table = pa.table({"name": ["x"] * len(values), "x": values, "in": [{"x": value} for value in values]})
    options = in_encoding("x", encoding)
    options["column_encoding"]["in.x"] = encoding
    for number, dictionary in enumerate((["name"], False)):
        source = tmp_path / f"{number}.parquet"
        pq.write_table(table, source, 2, **(options | {"use_dictionary": dictionary}))
        rewrite(source, tmp_path / "out.parquet", {"s": [0.5] * len(values)})
        assert pq.read_table(tmp_path / "out.parquet").drop(["s"]).equals(table)


def test_empty_row_groups_stay(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3]})
    source = tmp_path / "t.parquet"
    with pq.ParquetWriter(source, table.schema) as writer:
        for rows in (table.slice(0, 0), table.slice(0, 2), table.slice(0, 0), table.slice(2, 1), table.slice(0, 0)):
            writer.write_table(rows)
    rewrite(source, tmp_path / "out.parquet", {"s": [0.1, 0.2, 0.3]}, 2)
    assert row_groups(source) == row_groups(tmp_path / "out.parquet") == [0, 2, 0, 1, 0]
    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == {"a": [1, 2, 3], "s": [0.1, 0.2, 0.3]}


def test_chunks_are_full_even_where_row_groups_are_small(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": range(10)}), source, row_group_size=3)
    with open_table(source, file_type_of("parquet"), ["a"]) as reader:
        for _ in range(2):
            chunks = list(reader.chunks(4))
            assert [(chunk.first_row, len(chunk)) for chunk in chunks] == [(0, 4), (4, 4), (8, 2)]
            assert [value for chunk in chunks for value in chunk.column("a")] == list(range(10))
        assert chunks[0].column("nowhere") == [None] * 4


def test_a_chunk_ends_early_where_rows_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_operator.tables.table.CHUNK_BYTES", 25_000)
    source = tmp_path / "t.parquet"
    images = [bytes([number]) * 10_000 for number in range(5)]
    pq.write_table(pa.table({"image": images}), source, use_dictionary=False)
    with open_table(source, file_type_of("parquet")) as reader:
        assert [len(chunk) for chunk in reader.chunks(1000)] == [3, 2]


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * 10_000])), {}),
        (pa.StructArray.from_arrays([pa.array([b"x" * 10_000] * 200)], ["bytes"]), {}),
        (pa.array([b"x" * 10_000] * 200, pa.binary(10_000)), {}),
        (pa.array(["x" * 10_000] * 200), in_encoding("column", "DELTA_BYTE_ARRAY")),
        (
            pa.StructArray.from_arrays([pa.array([b"x" * 10_000] * 200)], ["bytes"]),
            in_encoding("column.bytes", "DELTA_BYTE_ARRAY"),
        ),
    ],
    ids=["shared", "shared-in-a-struct", "of-fixed-size", "begins-as-the-last", "begins-as-the-last-in-a-struct"],
)
def test_a_chunk_ends_early_where_rows_share_a_large_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: pa.Array, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(reader_module, "MAX_BATCH_BYTES", 50_000)
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"column": column}), source, compression="zstd", store_schema=False, **options)
    with open_table(source, file_type_of("parquet")) as reader:
        assert isinstance(reader, reader_module.ParquetReader)
        chunks = list(reader.chunks(256))
        largest = max(batch.nbytes for chunk in chunks for batch in chunk.batches())
        assert largest <= 50_000 + 100  # and some bytes of offsets
        assert max(sum(batch.nbytes for batch in chunk.batches()) for chunk in chunks) <= 50_000 + 10_000
        assert [chunk.first_row for chunk in chunks] == list(range(0, 200, len(chunks[0])))
        assert sum(len(chunk) for chunk in chunks) == 200


def test_a_row_group_that_is_large_in_memory_becomes_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_GROUP_BYTES", 25_000)
    source = tmp_path / "t.parquet"
    table = pa.table({"x": ["y" * 10_000] * 7})
    pq.write_table(table, source, row_group_size=6)
    rewrite(source, tmp_path / "out.parquet", {"s": [0.5] * 7}, 1)
    assert row_groups(tmp_path / "out.parquet") == [3, 3, 1]
    assert pq.read_table(tmp_path / "out.parquet").drop(["s"]).equals(table)


def test_values_that_python_has_no_equal_of_stand_as_unreadable(tmp_path: Path) -> None:
    not_utf8 = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    text = pa.concat_arrays([pa.array(["x", None]), not_utf8])
    far = pa.array([0, None, 2**62], pa.timestamp("ms"))
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": text, "far": far}), source)
    with open_table(source, file_type_of("parquet"), ["text"]) as reader:
        (chunk,) = reader.chunks(10)
    assert chunk.column("text")[:2] == ["x", None]
    assert chunk.column("far")[:2] == [datetime.datetime.fromtimestamp(0, datetime.UTC).replace(tzinfo=None), None]
    assert all(isinstance(chunk.column(name)[2], UnreadableValue) for name in ("text", "far"))


def test_values_are_plain_python(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(
        pa.table(
            {
                "image": [{"bytes": b"\x89PNG", "path": None}, None],
                "text": pa.array(["x", None]).dictionary_encode(),
                "raw": [b"\x00", None],
                "price": [decimal.Decimal("1.10"), None],
            }
        ),
        source,
    )
    with open_table(source, file_type_of("parquet")) as reader:
        (chunk,) = reader.chunks(10)
    assert chunk.column("image") == [{"bytes": b"\x89PNG", "path": None}, None]
    assert chunk.column("text") == ["x", None]
    assert chunk.column("raw") == [b"\x00", None]
    assert chunk.column("price") == [decimal.Decimal("1.10"), None]


def test_a_scan_reads_rows_and_columns_from_the_footer(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"b": [1, 2], "a": [{"x": 1}, None]}), source)
    with open_table(source, file_type_of("parquet")) as reader:
        assert reader.scan() == TableScan(2, ("b", "a"))


def test_an_existing_column_is_replaced_where_it_stands(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "clip_score": [{"old": 1}, None], "b": ["x", "y"]})
    source = tmp_path / "t.parquet"
    pq.write_table(table, source, compression={"a": "zstd", "clip_score.old": "gzip", "b": "none"})
    rewrite(source, tmp_path / "out.parquet", {"new": ["n", None], "clip_score": [None, 0.5]}, 1)
    new = pq.read_table(tmp_path / "out.parquet")
    assert new.to_pydict() == {"a": [1, 2], "clip_score": [None, 0.5], "b": ["x", "y"], "new": ["n", None]}
    assert (codecs(tmp_path / "out.parquet")["a"], codecs(tmp_path / "out.parquet")["b"]) == ("ZSTD", "UNCOMPRESSED")


def test_registered_and_unknown_extension_types_stay(tmp_path: Path) -> None:
    unknown = {"ARROW:extension:name": "somebody.else", "ARROW:extension:metadata": "{}"}
    schema = pa.schema([pa.field("id", pa.uuid()), pa.field("other", pa.list_(pa.int8()), metadata=unknown)])
    table = pa.table([pa.array([b"0" * 16], pa.uuid()), pa.array([[1]], pa.list_(pa.int8()))], schema)
    source = tmp_path / "t.parquet"
    pq.write_table(table, source)
    rewrite(source, tmp_path / "out.parquet", {"clip_score": [0.5]})
    old, new = pq.read_table(source), pq.read_table(tmp_path / "out.parquet")
    assert new.select([0, 1]).equals(old, check_metadata=True)
    assert new.schema.field("id").type == pa.uuid()
    assert (
        new.schema.field("other").metadata.items()
        >= {key.encode(): value.encode() for key, value in unknown.items()}.items()
    )


def test_hugging_face_features_gain_the_new_columns(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}
    schema = pa.schema({"text": pa.string()}, {"huggingface": json.dumps({"info": {"features": features}, "x": 1})})
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a"]}, schema), source)
    rewrite(source, tmp_path / "out.parquet", {"clip_score": [0.5], "clip_error": ["e"]})
    described = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"huggingface"])
    new = {"clip_score": {"dtype": "float64", "_type": "Value"}, "clip_error": {"dtype": "string", "_type": "Value"}}
    assert described == {"info": {"features": {**features, **new}}, "x": 1}
    assert list(described["info"]["features"]) == ["image", "text", "clip_score", "clip_error"]


@pytest.mark.parametrize("metadata", [b"not json", b"[]", b'{"info": null}', b"\xff"])
def test_metadata_that_is_not_understood_stays_as_it_is(tmp_path: Path, metadata: bytes) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"a": [1]}, pa.schema({"a": pa.int64()}, {"huggingface": metadata, "pandas": metadata})), source
    )
    rewrite(source, tmp_path / "out.parquet", {"a": [0.5]})
    assert pq.read_schema(tmp_path / "out.parquet").metadata == {b"huggingface": metadata, b"pandas": metadata}


def test_pandas_gets_its_index_and_types_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": pd.array(["x", None], "string"),
            "n": pd.array([1, None], "Int64"),
            "old": pd.array(["1", "2"], "string"),
        },
        index=pd.Index([10, 20], name="id"),
    )
    source = tmp_path / "t.parquet"
    frame.to_parquet(source)
    rewrite(source, tmp_path / "out.parquet", {"clip_score": [0.5, None], "old": [1.5, 2.5]})
    new = pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(new[["text", "n"]], frame[["text", "n"]])
    assert new["old"].tolist() == [1.5, 2.5]
    assert new["clip_score"].isna().tolist() == [False, True]


def test_int96_times_stay_int96(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    times = pa.array([1_700_000_000_123_456_000, None], pa.timestamp("ns"))
    table = pa.table({"t": times, "l": pa.array([[1], None], pa.list_(pa.timestamp("ns")))})
    pq.write_table(table, source, use_deprecated_int96_timestamps=True)
    rewrite(source, tmp_path / "out.parquet", {"clip_score": [0.5, None]})
    assert pq.read_table(tmp_path / "out.parquet").select(["t", "l"]).equals(pq.read_table(source))
    assert pq.ParquetFile(tmp_path / "out.parquet").schema.column(0).physical_type == "INT96"


@pytest.mark.parametrize("nest", [lambda time: time, lambda time: [time], lambda time: {"x": time}])
def test_int96_times_that_arrow_would_alter_stop_the_job(tmp_path: Path, nest: Callable[[object], object]) -> None:
    source = tmp_path / "t.parquet"
    year_9999 = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
    table = pa.table({"t": [nest(year_9999)]})
    pq.write_table(table, source, use_deprecated_int96_timestamps=True)
    with pytest.raises(JobError, match=r"column 't' holds times before 1677 or after 2262 .* TIMESTAMP\(MICROS\)"):
        rewrite(source, tmp_path / "out.parquet", {"clip_score": [0.5]})
    assert not (tmp_path / "out.parquet").exists()


def test_a_name_twice_in_the_schema_matters_only_for_a_column_that_is_used(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array(["x"])], names=["a", "a", "text"])
    source = tmp_path / "t.parquet"
    pq.write_table(table, source)
    rewrite(source, tmp_path / "out.parquet", {"clip_score": [0.5]})
    assert pq.ParquetFile(tmp_path / "out.parquet").schema_arrow.names == ["a", "a", "text", "clip_score"]
    with pytest.raises(JobError, match="names the column 'a' 2 times"):
        open_table(source, file_type_of("parquet"), ["text", "a"])
    with pytest.raises(JobError, match="names the column 'a' 2 times"):
        rewrite(source, tmp_path / "out.parquet", {"a": [0.5]})


def test_a_broken_file_is_named_in_words(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": range(100_000)}), sink, use_dictionary=False)
    whole = sink.getvalue()
    for broken in (b"", b"not parquet at all", whole[:-10], b"PAR1" + whole[100:]):
        with pytest.raises(JobError, match="cannot be read as Parquet"):
            rewritten(tmp_path, "t.parquet", broken, {"s": [1.0] * 100_000})
        assert not (tmp_path / "out.t.parquet").exists()


@pytest.mark.parametrize("nest", [lambda column: column, lambda column: pa.StructArray.from_arrays([column], ["x"])])
def test_a_dictionary_index_that_points_nowhere_stops_the_job(
    tmp_path: Path, nest: Callable[[pa.Array], pa.Array]
) -> None:
    indices = pa.array([0] * 100 + [1] * 100, pa.int32())
    table = pa.table({"x": nest(pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b", "c"])))})
    source, sink = tmp_path / "t.parquet", io.BytesIO()
    pq.write_table(table, sink, compression="none", write_statistics=False)
    runs = b"\x02\xc8\x01\0\xc8\x01"  # indices of two bits, a hundred times 0, and another hundred times the next
    assert sink.getvalue().count(runs + b"\x01") == 1
    source.write_bytes(sink.getvalue().replace(runs + b"\x01", runs + b"\x03"))
    with pytest.raises(JobError, match=r"Dictionary indices invalid.*out of bounds"):
        rewrite(source, tmp_path / "out.parquet", {"s": [0.5] * 200})
    assert not (tmp_path / "out.parquet").exists()


def test_an_output_that_misses_rows_is_not_completed(tmp_path: Path) -> None:
    source, target = tmp_path / "t.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), source)
    with open_table(source, file_type_of("parquet")) as reader:
        writer = create_table(target, file_type_of("parquet"), reader, {"s": AddedType.FLOAT64})
        writer.write(next(reader.chunks(1)), {"s": [1.0]})
        with pytest.raises(JobError, match="before all row groups"):
            writer.close()
    assert not target.exists()


def test_a_score_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1]}), source)
    with pytest.raises(ValueError, match="not a finite number"):
        rewrite(source, tmp_path / "out.parquet", {"s": [float("nan")]})
    assert not (tmp_path / "out.parquet").exists()
