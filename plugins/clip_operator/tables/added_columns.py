"""Checks the values of the added columns before any of them is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from clip_operator.tables.table import AddedType, AddedValue


def checked_columns(
    types: Mapping[str, AddedType], added: Mapping[str, Sequence[AddedValue]], rows: int
) -> list[list[AddedValue]]:
    """Return the values to write, a list a column in the order of `types`: plain numbers, plain strings, None.

    :raises ValueError: if a column is missing, unexpected or not `rows` long, or a number is NaN or infinite.
    :raises TypeError: if a value is not of its column's type.
    """
    if added.keys() != types.keys():
        raise ValueError(f"expected values for the columns {list(types)}, got {list(added)}")
    columns = []
    for name, column_type in types.items():
        values = added[name]
        if len(values) != rows:
            raise ValueError(f"column {name!r} has {len(values)} values for {rows} rows")
        columns.append(_CHECKS[column_type](name, values))
    return columns


def _integers(name: str, values: Sequence[AddedValue]) -> list[AddedValue]:
    for value in values:
        if value is not None and not isinstance(value, int):
            raise TypeError(f"column {name!r} holds integers, got {value!r}")
    return list(values)


def _floats(name: str, values: Sequence[AddedValue]) -> list[AddedValue]:
    checked: list[AddedValue] = []
    for value in values:
        if value is None:
            checked.append(None)
            continue
        if isinstance(value, str):
            raise TypeError(f"column {name!r} holds numbers, got the string {value!r}")
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"column {name!r}: {number} is not a finite number; a row without a score is None")
        checked.append(number)
    return checked


def _strings(name: str, values: Sequence[AddedValue]) -> list[AddedValue]:
    for value in values:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"column {name!r} holds strings, got {value!r}")
    return list(values)


_CHECKS = {AddedType.FLOAT64: _floats, AddedType.INT64: _integers, AddedType.STRING: _strings}
