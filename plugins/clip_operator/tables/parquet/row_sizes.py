"""How much each row holds, whatever batch or row group it came in."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_operator.tables import text_files
from clip_operator.tables.text_files import MAX_ROW_VALUES, row_too_long, too_many_values

_BYTES_OF_OTHERS = 8  # of a value whose length cannot be told

Sizes = NDArray[np.int64]


def row_sizes(batch: pa.RecordBatch) -> Sizes:
    """Return about how many bytes each row takes in memory, without what Arrow puts beside the values: int64 [rows].

    Of a value that rows share by a dictionary, only where it stands there is counted.
    """
    return _summed([_added_up(column, _sizes) for column in batch.columns], batch.num_rows)


def check_rows(batch: pa.RecordBatch, place: str, first_row: int) -> None:
    """Refuse rows that are larger, or have more values, than a row may.

    :param place: where the rows are, as in ``of row group 1``.
    :param first_row: the index there of the first one.
    :raises JobError: there is one; it is named.
    """
    for sizes, most, error in (
        (row_sizes(batch), text_files.MAX_ROW_LENGTH, row_too_long),
        (_summed([_added_up(c, _ones) for c in batch.columns], batch.num_rows), MAX_ROW_VALUES, too_many_values),
    ):
        if len(sizes) and sizes.max() > most:
            raise error(f"row {first_row + int(sizes.argmax()) + 1:,} {place}")


def _added_up(array: pa.Array, of_values: Callable[[pa.Array], Sizes]) -> Sizes:
    """Return for each row the sum, over all values inside of it, of what ``of_values`` says of each."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _added_up(array.storage, of_values)
    if pa.types.is_struct(kind):
        return _summed([_added_up(child, of_values) for child in array.flatten()], len(array))
    if pa.types.is_fixed_size_list(kind):
        values = array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size)
        return cast("Sizes", _added_up(values, of_values).reshape(len(array), kind.list_size).sum(axis=1))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _of_lists(array, of_values)
    return of_values(array)


def _ones(array: pa.Array) -> Sizes:
    return np.ones(len(array), np.int64)


def _sizes(array: pa.Array) -> Sizes:
    if (width := _width(array.type)) is not None:
        return np.full(len(array), width, np.int64)
    return _lengths(array)


def _of_lists(array: pa.Array, of_values: Callable[[pa.Array], Sizes]) -> Sizes:
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    ends = np.concatenate(([0], np.cumsum(_added_up(values, of_values))))
    return cast("Sizes", np.diff(ends[offsets - offsets[0]]))


def _lengths(array: pa.Array) -> Sizes:
    try:
        if array.type in (pa.string_view(), pa.binary_view()):
            array = array.cast(pa.large_binary())
        return cast("Sizes", pc.fill_null(pc.binary_length(array), 0).to_numpy().astype(np.int64))
    except pa.ArrowNotImplementedError:  # of a dictionary, a union, a list view
        return np.full(len(array), _BYTES_OF_OTHERS, np.int64)


def _summed(sizes: list[Sizes], rows: int) -> Sizes:
    return sum(sizes, start=np.zeros(rows, np.int64))


def _width(kind: pa.DataType) -> int | None:
    """Return how many bytes every value of a type takes, or None where they differ."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:  # of varying length, or of none
        return _BYTES_OF_OTHERS if pa.types.is_null(kind) else None
