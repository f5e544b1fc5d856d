"""Finds columns in Parquet schemas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from clip_operator.errors import JobError
from clip_operator.tables.paths import DEEPEST, MOST_PATHS, Steps, path_of


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
