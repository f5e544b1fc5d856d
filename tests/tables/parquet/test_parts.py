"""Parquet in parts: some row groups of a file of which nothing else is there, many files as one, parts joined."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.tables import (
    AddedType,
    ParquetLayout,
    create_table,
    file_type_of,
    join_parquet,
    open_table,
    parquet_layout,
)
from tests.hostile.table_files import encrypted
from tests.tables.parquet.test_parquet import codecs, row_groups, tables
from tests.tables.rewriting import rewrite

PARQUET = file_type_of("parquet")
QUICK = settings(
    max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Watched(io.BytesIO):
    """A stream that knows how many bytes were read."""

    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def layout_of(path: Path) -> ParquetLayout:
    with path.open("rb") as stream:
        return parquet_layout(stream)


def sparse_copy(path: Path, target: Path, groups: range) -> None:
    """A file as large as another with its footer and some row groups, and otherwise bytes that are none of its own."""
    layout, content = layout_of(path), path.read_bytes()
    copy = bytearray(b"\xaa" * len(content))
    spans = [(layout.row_groups[group].start, layout.row_groups[group].stop) for group in groups]
    for start, stop in [*spans, layout.footer]:
        copy[start:stop] = content[start:stop]
    target.write_bytes(copy)


def score(source: Path | Sequence[Path], target: Path, groups: range | None, first: int) -> int:
    """Write the row groups with the number of each row as its score, and return how many rows there are."""
    rows = 0
    with (
        open_table(source, PARQUET, row_groups=groups) as reader,
        create_table(target, PARQUET, reader, {"s": AddedType.FLOAT64}) as writer,
    ):
        for chunk in reader.chunks(3):
            assert chunk.first_row == rows
            writer.write(chunk, {"s": [first + rows + number + 0.5 for number in range(len(chunk))]})
            rows += len(chunk)
        assert reader.scan().rows == rows
    return rows


@QUICK
@given(
    table=tables(),
    group_rows=st.integers(1, 5),
    compression=st.sampled_from(["none", "snappy", "zstd"]),
    dictionary=st.booleans(),
    data=st.data(),
)
def test_row_groups_scored_apart_and_joined_are_the_file_scored_whole(
    tmp_path: Path, table: pa.Table, group_rows: int, compression: str, dictionary: bool, data: st.DataObject
) -> None:
    source, whole = tmp_path / "t.parquet", tmp_path / "whole.parquet"
    pq.write_table(table, source, group_rows, compression=compression, use_dictionary=dictionary)
    score(source, whole, None, 0)
    groups = len(layout_of(source).row_groups)
    ends = sorted(data.draw(st.sets(st.integers(1, groups - 1), max_size=3))) if groups > 1 else []
    outputs, first = [], 0
    for number, (start, end) in enumerate(zip([0, *ends], [*ends, groups], strict=True)):
        sparse_copy(source, tmp_path / "sparse.parquet", range(start, end))
        outputs.append(tmp_path / f"out{number}.parquet")
        first += score(tmp_path / "sparse.parquet", outputs[-1], range(start, end), first)

    joined = tmp_path / "joined.parquet"
    assert join_parquet(outputs, joined) == first == table.num_rows

    # Not the bytes: of what a dictionary holds and no row names, less may be left after being read once more.
    with pq.ParquetFile(joined) as merged, pq.ParquetFile(whole) as single:
        assert merged.schema_arrow.equals(single.schema_arrow, check_metadata=True)
        assert row_groups(joined) == row_groups(whole)
        for group in range(single.num_row_groups):
            rows, wanted = (repr(file.read_row_group(group).to_pylist()) for file in (merged, single))
            assert rows == wanted


def test_a_layout_tells_rows_and_bytes_of_each_row_group(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": range(250), "b": [str(n % 7) for n in range(250)]}), path, 100)
    layout = layout_of(path)
    assert ([group.rows for group in layout.row_groups], layout.rows) == ([100, 100, 50], 250)
    size = path.stat().st_size
    assert layout.footer[1] == size
    metadata = pq.read_metadata(path)
    assert size - layout.footer[0] == metadata.serialized_size + 8
    assert layout.row_groups[0].start == 4
    starts = [metadata.row_group(group).column(0).dictionary_page_offset for group in range(3)]
    assert [group.start for group in layout.row_groups] == starts


def test_a_layout_costs_little_reading(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    images = pa.array([os.urandom(1000) for _ in range(20_000)])
    pq.write_table(pa.table({"a": images}), path, 10_000, use_dictionary=False)
    stream = Watched(path.read_bytes())
    assert parquet_layout(stream).rows == 20_000
    assert stream.read_bytes < 3_000_000 < path.stat().st_size / 6


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_layout_of_something_else_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(JobError, match="cannot be read as Parquet"):
        parquet_layout(io.BytesIO(content))


@pytest.mark.parametrize("plain_footer", [False, True])
def test_a_layout_of_an_encrypted_file_is_refused_in_words(plain_footer: bool) -> None:
    with pytest.raises(JobError, match="is encrypted"):
        parquet_layout(io.BytesIO(encrypted(plain_footer)))


def test_row_groups_that_are_not_there_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "t.parquet", 1)
    with pytest.raises(JobError, match="has 2 row groups"):
        open_table(tmp_path / "t.parquet", PARQUET, row_groups=range(1, 3))


def test_files_of_the_same_columns_become_one(tmp_path: Path) -> None:
    tables = [pa.table({"a": [1, 2, 3]}, metadata={"n": "0"}), pa.table({"a": pa.array([], "int64")})]
    tables.append(pa.table({"a": [4, 5]}, metadata={"n": "2"}))
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path, 2, compression="zstd")
    assert score(paths, tmp_path / "out.parquet", None, 0) == 5
    output = pq.read_table(tmp_path / "out.parquet")
    assert output["a"].to_pylist() == [1, 2, 3, 4, 5]
    assert output["s"].to_pylist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert output.schema.metadata == {b"n": b"0"}
    assert row_groups(tmp_path / "out.parquet") == [row for path in paths for row in row_groups(path)]
    assert codecs(tmp_path / "out.parquet")["a"] == "ZSTD"


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        (pa.string(), pa.large_string(), "é"),
        (pa.large_string(), pa.string_view(), "é"),
        (pa.string_view(), pa.string(), "é"),
        (pa.binary(), pa.binary_view(), b"\xff"),
        (pa.list_(pa.string()), pa.large_list(pa.large_string()), ["a", None]),
        (pa.struct([("x", pa.large_binary())]), pa.struct([("x", pa.binary())]), {"x": b"\xff"}),
        (pa.map_(pa.string(), pa.large_string()), pa.map_(pa.string(), pa.string()), [("k", "v")]),
    ],
    ids=str,
)
def test_one_type_of_parquet_has_several_names_in_arrow(
    tmp_path: Path, first: pa.DataType, second: pa.DataType, value: object
) -> None:
    paths = [tmp_path / name for name in ("one.parquet", "two.parquet")]
    for path, data_type in zip(paths, (first, second), strict=True):
        pq.write_table(pa.table({"a": pa.array([value, None], data_type)}), path)
    assert score(paths, tmp_path / "out.parquet", None, 0) == 4
    assert join_parquet(paths, tmp_path / "joined.parquet") == 4
    for output in ("out.parquet", "joined.parquet"):
        column = pq.read_table(tmp_path / output)["a"]
        assert column.type == first
        assert column.to_pylist() == [value, None, value, None]


def test_a_damaged_file_among_many_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(10_000)}), tmp_path / "one.parquet", use_dictionary=False)
    content = (tmp_path / "one.parquet").read_bytes()
    for damaged, first in ((content[:-9], "footer"), (content[:100] + b"\xff" * 500 + content[600:], "data")):
        (tmp_path / "two.parquet").write_bytes(damaged)
        with pytest.raises(JobError, match=r"two.parquet: The file cannot be read as Parquet"):
            rewrite([tmp_path / "one.parquet", tmp_path / "two.parquet"], tmp_path / "out.parquet", {})
        assert not (tmp_path / "out.parquet").exists(), first


class Pipe(io.RawIOBase):
    """A stream that takes bytes and can do nothing else."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # RawIOBase promises bytes-like, which typing cannot say
        self.taken += view
        return view.nbytes


def test_streams_are_joined_into_one_that_cannot_seek(tmp_path: Path) -> None:
    table = pa.table({"a": range(10), "t": pa.array(range(10), pa.timestamp("ns"))}, metadata={"owner": "me"})
    pq.write_table(table, tmp_path / "t.parquet", 3, use_deprecated_int96_timestamps=True, compression="gzip")
    content = (tmp_path / "t.parquet").read_bytes()
    pipe, sources = Pipe(), [io.BytesIO(content), io.BytesIO(content)]
    target = io.BufferedWriter(pipe)
    assert join_parquet(sources, target) == 20
    target.flush()
    (tmp_path / "out.parquet").write_bytes(pipe.taken)
    assert pq.read_table(tmp_path / "out.parquet").equals(pa.concat_tables([table, table]), check_metadata=True)
    assert row_groups(tmp_path / "out.parquet") == [3, 3, 3, 1, 3, 3, 3, 1]
    assert codecs(tmp_path / "out.parquet") == {"a": "GZIP", "t": "GZIP"}
    assert pq.ParquetFile(tmp_path / "out.parquet").schema.column(1).physical_type == "INT96"
    assert not any(stream.closed for stream in (*sources, target))


def test_streams_are_opened_one_after_the_other_and_closed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(10)}), tmp_path / "t.parquet", 3)
    content = (tmp_path / "t.parquet").read_bytes()
    opened: list[io.BytesIO] = []

    def source() -> BinaryIO:
        assert all(stream.closed for stream in opened)
        opened.append(io.BytesIO(content))
        return opened[-1]

    assert join_parquet((source for _ in range(3)), tmp_path / "out.parquet") == 30
    assert opened
    assert all(stream.closed for stream in opened)


def test_what_a_stream_raises_comes_through(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise JobError("the store is gone")

    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    with pytest.raises(JobError, match="the store is gone"):
        join_parquet([tmp_path / "t.parquet"], Broken())
