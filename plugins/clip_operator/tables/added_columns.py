"""Checks the values of the added columns before any of them is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from clip_operator.tables.table import AddedType, AddedValue


def checked_columns(
    types: Mapping[str, AddedType], added: Mapping[str, Sequence[AddedValue]], rows: int
) -> list[list[AddedValue]]:
    """Return the values to write, a list a column in the order of `types`: plain numbers, plain strings, tuples of
    floats, None.

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
        checked.append(_float(name, value))
    return checked


def _float(name: str, value: AddedValue) -> float:
    if value is None or isinstance(value, str | tuple):
        raise TypeError(f"column {name!r} holds numbers, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"column {name!r}: {number} is not a finite number; a row without a score is None")
    return number


def _lists(name: str, values: Sequence[AddedValue]) -> list[AddedValue]:
    checked: list[AddedValue] = []
    for value in values:
        if value is not None and not isinstance(value, tuple):
            raise TypeError(f"column {name!r} holds lists of numbers, got {value!r}")
        checked.append(None if value is None else tuple(_float(name, number) for number in value))
    return checked


def _strings(name: str, values: Sequence[AddedValue]) -> list[AddedValue]:
    for value in values:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"column {name!r} holds strings, got {value!r}")
    return list(values)


_CHECKS: Mapping[AddedType, Callable[[str, Sequence[AddedValue]], list[AddedValue]]] = {
    AddedType.FLOAT64: _floats,
    AddedType.INT64: _integers,
    AddedType.STRING: _strings,
    AddedType.FLOAT64_LIST: _lists,
}
