"""Parquet files of a few hundred bytes that unfold to gigabytes."""

from __future__ import annotations

import io
import struct

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.table_files import ROW, parquet

_SMALL = {"compression": "zstd", "store_schema": False, "write_statistics": False}


def one_row_of_many_values(values: int) -> bytes:
    """Return a file of one row with a list of so many nulls."""
    lists = pa.ListArray.from_arrays(pa.array([0, values], pa.int32()), pa.nulls(values, pa.int8()))
    return parquet({"x": lists}, rows=1, **_SMALL)


def lists_of_one_long_text(rows: int, values: int, length: int) -> bytes:
    """Return a file each row of which has a list that names the same long text so many times, by a dictionary."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows * values, pa.int32()), pa.array(["x" * length]))
    lists = pa.ListArray.from_arrays(pa.array(range(0, rows * values + 1, values), pa.int32()), text)
    return parquet({"x": lists}, rows=rows, dictionary_pagesize_limit=1 << 30, **_SMALL)


def inflated_page(mebibytes: int) -> bytes:
    """Return a file of one row with a text of so many MiB, of which compression leaves next to nothing."""
    return parquet({"x": ["x" * (mebibytes << 20)]}, rows=1, use_dictionary=False, **_SMALL)


def footer_of_absurd_counts() -> bytes:
    """Return a file whose footer says that it has a million row groups with a million columns each, and ends there."""
    count = b"\xfc\xc0\x84\x3d"  # Thrift's list of 1,000,000 structs
    columns = b"\x19" + count
    row_groups = b"\x19" + count + columns
    schema = b"\x15\x02\x19\x2c" + b"\x48\x01r\x15\x02\x00" + b"\x15\x02\x25\x02\x18\x01a\x00"
    footer = schema + b"\x16\x02" + row_groups
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


def embeddings(rows: int, values: int) -> bytes:
    """Return what people have: a row group with many millions of list values, few in each row."""
    flat = pa.array([0.5] * rows * values, pa.float32())
    lists = pa.ListArray.from_arrays(pa.array(range(0, rows * values + 1, values), pa.int32()), flat)
    sink = io.BytesIO()
    columns = {name: [value] * rows for name, value in ROW.items()}
    pq.write_table(pa.table({**columns, "embedding": lists}), sink)
    return sink.getvalue()
