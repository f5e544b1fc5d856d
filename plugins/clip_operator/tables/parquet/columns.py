"""Finds columns in Parquet schemas, and tells how two schemas differ."""

from __future__ import annotations

import pyarrow as pa

from clip_operator.errors import JobError
from clip_operator.tables.parquet.types import in_parquet

_SHOWN_NAMES = 3


def column_index(schema: pa.Schema, name: str) -> int | None:
    """Return the position of a top-level column, None if there is none.

    :raises JobError: if several columns have the name.
    """
    indices = schema.get_all_field_indices(name)
    if len(indices) > 1:
        raise JobError(f"The Parquet schema names the column {name!r} {len(indices)} times; rename all but one.")
    return int(indices[0]) if indices else None


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
