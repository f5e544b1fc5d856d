"""The size of a row is that of its values, wherever it stands in a batch."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from clip_operator.tables.parquet.row_sizes import row_sizes


@pytest.mark.parametrize(
    ("column", "sizes"),
    [
        (pa.array(["a", None, "ccc"]), [1, 0, 3]),
        (pa.array(["a", None, "ccc"], pa.large_string()), [1, 0, 3]),
        (pa.array(["a", None, "ccc"], pa.string_view()), [1, 0, 3]),
        (pa.array([b"abc", None], pa.binary(3)), [3, 3]),
        (pa.array(["a", None, "a"]).dictionary_encode(), [4, 4, 4]),
        (pa.array([{"bytes": b"xx", "path": None}, None, {"bytes": b"x", "path": "yyyy"}]), [2, 0, 5]),
        (pa.array([["a"], None, ["bb", "ccc"], []]), [1, 0, 5, 0]),
        (pa.array([[1], None, [1, 2]], pa.large_list(pa.int32())), [4, 0, 8]),
        (pa.array([["a", "b"], None, ["bb", "ccc"]], pa.list_(pa.string(), 2)), [2, 0, 5]),
        (pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)), [8, 8]),
        (pa.array([[("a", 1)], None, [("bb", 2), ("c", 3)]], pa.map_(pa.string(), pa.int8())), [2, 0, 5]),
        (pa.array([["a"], ["b"]], pa.list_view(pa.string())), [8, 8]),
        (pa.array([None, None]), [8, 8]),
        (pa.array([True, None]), [1, 1]),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", "[1]"])), [2, 3]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_the_size_of_a_row_does_not_depend_on_where_it_stands(column: Any, sizes: list[int]) -> None:
    batch = pa.RecordBatch.from_arrays([column, pa.nulls(len(column), pa.int16())], ["values", "numbers"])
    expected = [size + 2 for size in sizes]
    assert row_sizes(batch).tolist() == expected
    for row in range(len(column)):
        assert row_sizes(batch.slice(row, 1)).tolist() == [expected[row]]
