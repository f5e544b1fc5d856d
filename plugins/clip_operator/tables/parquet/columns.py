"""Finds columns in Parquet schemas, and tells how two schemas differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from clip_operator.errors import JobError
from clip_operator.tables.parquet.types import in_parquet
from clip_operator.tables.paths import DEEPEST, MOST_PATHS, Steps, path_of

_SHOWN_NAMES = 3


def column_index(schema: pa.Schema, name: str) -> int | None:
    """Return the position of a top-level column, None if there is none.

    :raises JobError: if several columns have the name.
    """
    indices = schema.get_all_field_indices(name)
    if len(indices) > 1:
        raise JobError(f"The Parquet schema names the column {name!r} {len(indices)} times; rename all but one.")
    return int(indices[0]) if indices else None


def schema_paths(schema: pa.Schema, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return which of the wanted paths lead to a column's inner values, and some others that lead to texts."""
    found = [name for name in wanted if name not in schema.names and _leads_somewhere(schema, path_of(name) or ())]
    texts = (path for inner in schema for path in _texts_below(inner.name, inner.type, DEEPEST))
    return tuple(dict.fromkeys([*found, *islice(texts, MOST_PATHS)]))


def _leads_somewhere(schema: pa.Schema, steps: Steps) -> bool:
    if not steps or schema.get_field_index(str(steps[0])) < 0:
        return False
    data_type = schema.field(str(steps[0])).type
    for step in steps[1:]:
        if isinstance(step, int) and _is_list(data_type):
            data_type = data_type.value_type
        elif isinstance(step, str) and pa.types.is_struct(data_type) and data_type.get_field_index(step) >= 0:
            data_type = data_type.field(step).type
        else:
            return False
    return True


def _is_list(data_type: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(data_type) for is_kind in kinds)


def _texts_below(path: str, data_type: pa.DataType, levels: int) -> Iterator[str]:
    inner: list[tuple[str, pa.DataType]] = []
    if pa.types.is_struct(data_type):
        inner = [(f"{path}.{member.name}", member.type) for member in data_type]
    elif _is_list(data_type):
        inner = [(f"{path}[0]", data_type.value_type)]
    for name, below in inner if levels else []:
        if below in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()) and path_of(name):
            yield name
        else:
            yield from _texts_below(name, below, levels - 1)


def check_same_columns(schema: pa.Schema, name: str, like: pa.Schema, like_name: str) -> None:
    """Accept two files as parts of one table; metadata may differ, and what Arrow calls one type of Parquet.

    :param name: what to call the file with the schema, as in ``part-2.parquet``.
    :param like_name: what to call the file that it should be like.
    :raises JobError: if the columns differ in name, type, order, or in whether they can be null.
    """
    if not _in_parquet(schema).equals(_in_parquet(like), check_metadata=False):
        raise JobError(
            f"{name} has other columns than {like_name}: {_difference(schema, like)}. "
            "Files that make up one table need the same columns, of the same types, in the same order."
        )


def with_types(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows of a part with the names that the table's schema has for the same types."""
    arrays = [
        array if array.type == data_type else array.cast(data_type)
        for array, data_type in zip(batch.columns, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _in_parquet(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(in_parquet(field.type)) for field in schema])


def _difference(schema: pa.Schema, like: pa.Schema) -> str:
    missing = [f"it lacks {name!r}" for name in like.names if name not in schema.names]
    more = [f"only it has {name!r}" for name in schema.names if name not in like.names]
    if missing or more:
        return ", ".join(missing[:_SHOWN_NAMES] + more[:_SHOWN_NAMES])
    for ours, theirs in zip(_in_parquet(schema), _in_parquet(like), strict=False):
        if ours.name == theirs.name and not ours.equals(theirs, check_metadata=False):
            return f"the column {ours.name!r} is {_described(ours)}, not {_described(theirs)}"
    return "the same columns stand in another order"


def _described(field: pa.Field) -> str:
    return f"{field.type}" if field.nullable else f"{field.type} without nulls"
