"""Finds columns in Parquet schemas."""

from __future__ import annotations

import pyarrow as pa

from clip_operator.errors import JobError


def column_index(schema: pa.Schema, name: str) -> int | None:
    """Return the position of a top-level column, None if there is none.

    :raises JobError: if several columns have the name.
    """
    indices = schema.get_all_field_indices(name)
    if len(indices) > 1:
        raise JobError(f"The Parquet schema names the column {name!r} {len(indices)} times; rename all but one.")
    return int(indices[0]) if indices else None
