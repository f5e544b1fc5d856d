"""Arrow's types as trees: what stands inside of what, and which of them Parquet does not tell apart."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

_PLAIN = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


def changed(data_type: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return the type with ``change`` made of everything in it, from the inside out, and of itself."""

    def field(inner: pa.Field) -> pa.Field:
        return inner.with_type(changed(inner.type, change))

    if pa.types.is_dictionary(data_type):
        data_type = pa.dictionary(data_type.index_type, changed(data_type.value_type, change), data_type.ordered)
    elif pa.types.is_struct(data_type):
        data_type = pa.struct([field(inner) for inner in data_type])
    elif pa.types.is_list(data_type):
        data_type = pa.list_(field(data_type.value_field))
    elif pa.types.is_large_list(data_type):
        data_type = pa.large_list(field(data_type.value_field))
    elif pa.types.is_fixed_size_list(data_type):
        data_type = pa.list_(field(data_type.value_field), data_type.list_size)
    elif pa.types.is_map(data_type):
        data_type = pa.map_(field(data_type.key_field), field(data_type.item_field))
    return change(data_type)


def in_parquet(data_type: pa.DataType) -> pa.DataType:
    """Return one type for those that are one in Parquet, and only differ in how Arrow holds their values in memory.

    A writer notes which of them it had, so that files of one table may have several.
    """
    return changed(data_type, _plain)


def _plain(data_type: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(data_type):
        return pa.list_(data_type.value_field)
    return _PLAIN.get(data_type, data_type)
