"""Paths into columns: what they lead to, in JSON and in Parquet, and which of them are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.tables import file_type_of, open_table, path_of

NAMES = st.text(st.characters(codec="utf-8", exclude_characters=".[]"), min_size=1, max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def walked(path: str, value: Any) -> list[tuple[str, Any]]:
    """All that is inside a value, by its path."""
    inner: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        inner = [(f"{path}.{name}", below) for name, below in value.items()]
    elif isinstance(value, list):
        inner = [(f"{path}[{index}]", below) for index, below in enumerate(value)]
    return inner + [pair for name, below in inner for pair in walked(name, below)]


def column(path: Path, name: str) -> list[object]:
    with open_table(path, file_type_of(path.name), [name]) as table:
        announced = [value for chunk in table.chunks(2) for value in chunk.column(name)]
        assert (name in table.scan().paths) == (name not in table.scan().columns)
    with open_table(path, file_type_of(path.name)) as table:
        assert [value for chunk in table.chunks(2) for value in chunk.column(name)] == announced
    return announced


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=3), data=st.data())
def test_a_path_leads_to_what_python_finds_there(
    tmp_path: Path, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inside = [{path: value for name in row for path, value in walked(name, row[name])} for row in rows]
    paths = sorted({path for row in inside for path in row})
    if paths:
        path = data.draw(st.sampled_from(paths))
        assert column(tmp_path / "t.jsonl", path) == [row.get(path) for row in inside]


@pytest.mark.parametrize(
    "name",
    ["", "a", "a.", ".a", "a..b", "a[]", "a[x]", "a[-1]", "[0]", "a[0", "a[0]b", "a]0[", "a.[0]", "a[0123456789]"],
)
def test_what_is_no_path_is_a_name(name: str) -> None:
    assert path_of(name) is None


ROWS: list[dict[str, Any]] = [
    {"meta": {"caption": "one", "image": {"path": "1.png"}}, "turns": [{"value": "a"}, {"value": "b"}], "m.x": "flat"},
    {"meta": None, "turns": [], "m.x": None},
    {"meta": {"caption": None, "image": None}, "turns": None, "m.x": "flat"},
    {"meta": {"caption": "four", "image": {"path": None}}, "turns": [{"value": None}], "m.x": "flat"},
]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_every_format_knows_them(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        turns = pa.list_(pa.struct([("value", pa.string())]))
        meta = pa.struct([("caption", pa.string()), ("image", pa.struct([("path", pa.string())]))])
        schema = pa.schema(
            [("meta", meta), ("turns", turns), ("m.x", pa.string()), ("m", pa.struct([("x", pa.int8())]))]
        )
        table = pa.Table.from_pylist([{**row, "m": {"x": 1}} for row in ROWS], schema)
        pq.write_table(table, path, row_group_size=3)
    else:
        rows = [{**row, "m": {"x": 1}} for row in ROWS]
        path.write_text(json.dumps(rows) if ending == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    assert column(path, "meta.caption") == ["one", None, None, "four"]
    assert column(path, "meta.image.path") == ["1.png", None, None, None]
    assert column(path, "turns[0].value") == ["a", None, None, None]
    assert column(path, "turns[1].value") == ["b", None, None, None]
    assert column(path, "m.x") == ["flat", None, "flat", "flat"]
    with open_table(path, file_type_of(path.name), ["meta.nothing", "turns[1].value", "turns.value", "m.x"]) as table:
        paths = table.scan().paths
    assert paths[0] == "turns[1].value"
    assert {"meta.caption", "meta.image.path", "turns[0].value"} <= set(paths)
    assert not {"meta.nothing", "turns.value", "m.x"} & set(paths)
