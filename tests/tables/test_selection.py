"""Some rows of a table as a table: each row is what it was, and none comes that was not asked for."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.tables import create_selection, file_type_of, open_table
from clip_operator.tables.csv.reader import CsvChunk
from clip_operator.tables.json.reader import JsonChunk
from tests.tables.parquet.test_parquet import codecs, row_groups
from tests.tables.parquet.test_parquet import tables as parquet_tables
from tests.tables.rewriting import rewrite
from tests.tables.test_cutting import TABLES

QUICK = settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def select(source: Path, target: Path, kept: list[bool], rows: int) -> None:
    with open_table(source, file_type_of(source.name)) as table, create_selection(target, table) as selection:
        for chunk in table.chunks(rows):
            selection.write(chunk.select(kept[chunk.first_row : chunk.first_row + len(chunk)]), {})


def rows_of(path: Path) -> list[str]:
    """The rows as they stand in a text: records, lines or elements."""
    with open_table(path, file_type_of(path.name)) as table:
        chunks = list(table.chunks(1000))
    assert all(isinstance(chunk, JsonChunk | CsvChunk) for chunk in chunks)
    return [text.rstrip("\r\n") for chunk in chunks if isinstance(chunk, JsonChunk | CsvChunk) for text in chunk.texts]


@QUICK
@given(table=TABLES, chunk=st.integers(1, 5), packed=st.booleans(), data=st.data())
def test_the_rows_of_a_text_that_are_kept_are_what_they_were(
    tmp_path: Path, table: tuple[str, str], chunk: int, packed: bool, data: st.DataObject
) -> None:
    name, text = table
    suffix = f"{name}.gz" if packed else name
    source, target = tmp_path / f"t.{suffix}", tmp_path / f"out.{suffix}"
    source.write_bytes(gzip.compress(text.encode(), mtime=0) if packed else text.encode())
    rows = rows_of(source)
    kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    select(source, target, kept, chunk)
    assert rows_of(target) == [row for row, is_kept in zip(rows, kept, strict=True) if is_kept]


@QUICK
@given(table=TABLES.filter(lambda table: table[0] != "json"), chunk=st.integers(1, 5))
def test_all_rows_of_lines_and_records_are_the_table_itself(tmp_path: Path, table: tuple[str, str], chunk: int) -> None:
    name, text = table
    source, target, whole = tmp_path / f"t.{name}", tmp_path / f"out.{name}", tmp_path / f"whole.{name}"
    source.write_text(text, newline="")
    select(source, target, [True] * len(rows_of(source)), chunk)
    rewrite(source, whole, {})
    assert target.read_bytes() == whole.read_bytes()


def test_of_no_rows_a_table_without_rows_is_left(tmp_path: Path) -> None:
    for name, text, empty in (
        ("t.jsonl", '{"a": 1}\n{"a": 2}\n', ""),
        ("t.json", '[{"a": 1}, {"a": 2}]', "[]"),
        ("t.csv", '"a",b\r\n1,2\r\n', '"a",b\r\n'),
    ):
        (tmp_path / name).write_text(text, newline="")
        select(tmp_path / name, tmp_path / f"out.{name}", [False] * 2, 1)
        assert (tmp_path / f"out.{name}").read_bytes() == empty.encode()


@QUICK
@given(table=parquet_tables(), group_rows=st.integers(1, 13), chunk=st.integers(1, 14), data=st.data())
def test_rows_of_parquet_keep_types_metadata_and_codec(
    tmp_path: Path, table: pa.Table, group_rows: int, chunk: int, data: st.DataObject
) -> None:
    source, target = tmp_path / "t.parquet", tmp_path / "out.parquet"
    pq.write_table(table, source, group_rows, compression="zstd")
    kept = data.draw(st.lists(st.booleans(), min_size=table.num_rows, max_size=table.num_rows))
    select(source, target, kept, chunk)
    old, new = pq.read_table(source), pq.read_table(target)
    assert new.equals(old.filter(pa.array(kept, pa.bool_())), check_metadata=True)
    assert sum(row_groups(target)) == sum(kept)
    largest = max(row_groups(source), default=1)
    assert all(rows == largest for rows in row_groups(target)[:-1])
    if any(kept):
        assert codecs(target) == codecs(source)


class _Broken(list[bool]):
    """Says of the first row that it is kept, and of the second nothing."""

    def __getitem__(self, rows: Any) -> Any:
        return [[True]][rows.start]


@pytest.mark.parametrize("data_type", [pa.string_view(), pa.binary_view(), pa.list_(pa.string_view())])
def test_rows_of_types_that_arrow_cannot_filter_are_kept_too(tmp_path: Path, data_type: pa.DataType) -> None:
    values = [["a"], None, ["b", "c" * 40]] if pa.types.is_list(data_type) else ["a", None, "c" * 40]
    table = pa.table({"x": pa.array(values, data_type)})
    pq.write_table(table, tmp_path / "t.parquet")
    select(tmp_path / "t.parquet", tmp_path / "out.parquet", [False, True, True], 2)
    new = pq.read_table(tmp_path / "out.parquet")
    assert new.schema == pq.read_table(tmp_path / "t.parquet").schema
    assert new.column("x").to_pylist() == table.column("x").to_pylist()[1:]


def test_a_selection_that_fails_leaves_no_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("{}\n{}\n")
    for name in ("t.parquet", "t.jsonl"):
        with pytest.raises(IndexError):
            select(tmp_path / name, tmp_path / f"out.{name}", _Broken(), 1)
        assert not (tmp_path / f"out.{name}").exists()
