"""Finds the columns of a table in many parts that differ, as far as no value of any part is altered by that."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from clip_operator.errors import JobError
from clip_operator.tables.parquet.schema import metadata_of_both
from clip_operator.tables.parquet.types import in_parquet

_INTEGERS = {
    (True, 8): pa.int8(),
    (True, 16): pa.int16(),
    (True, 32): pa.int32(),
    (True, 64): pa.int64(),
    (False, 8): pa.uint8(),
    (False, 16): pa.uint16(),
    (False, 32): pa.uint32(),
    (False, 64): pa.uint64(),
}

_Column = tuple[str, int]  # a name, and which of the columns of that name it is, from 0


class UnifiedColumns:
    """The columns of all parts that were added: those of the first in its order, then what later ones have more.

    A column that a part lacks is null there. What Arrow calls one type of Parquet is one type, of which the first part
    decides the name; integers become as wide as the widest; a column without any value takes the type of the others.
    """

    def __init__(self) -> None:
        self._fields: dict[_Column, pa.Field] = {}
        self._told_by: dict[_Column, str] = {}
        self._metadata: dict[bytes, bytes] = {}

    def add(self, schema: pa.Schema, name: str) -> bool:
        """Take in the columns of a part, and tell whether the table has others now.

        :param name: what to call the part, as in ``part-2.parquet``.
        :raises JobError: a column has a type that goes with that of an earlier part only with loss; names both.
        """
        theirs, changed = _columns(schema), set()
        if not self._told_by:
            self._metadata = dict(schema.metadata or {})
            self._fields, self._told_by = theirs, dict.fromkeys(theirs, name)
            return True
        before = dict(self._fields)
        for column, field in theirs.items():
            self._add(column, field, name)
            if column not in before or before[column].type != self._fields[column].type:
                changed.add(column)
        for column in self._fields.keys() - theirs.keys():
            self._fields[column] = self._fields[column].with_nullable(True)
        if changed:
            alike = {name for name, n in changed if self._fields[name, n].type == theirs[name, n].type}
            names = {name for name, _ in changed}
            self._metadata = metadata_of_both(self._metadata, dict(schema.metadata or {}), names, alike)
        return self._fields != before

    def _add(self, column: _Column, field: pa.Field, name: str) -> None:
        ours = self._fields.get(column)
        if ours is None:
            self._fields[column], self._told_by[column] = field.with_nullable(True), name
            return
        common = _common(ours.type, field.type)
        if common is None:
            raise JobError(
                f"{name} has other columns than {self._told_by[column]}: the column {column[0]!r} is {field.type}, not "
                f"{ours.type}. Files that make up one table need types of which one holds the values of both as they "
                "are: write the column with one type, or name those files that fit with a pattern"
            )
        if common != ours.type:
            self._told_by[column] = name
        self._fields[column] = ours.with_type(common).with_nullable(ours.nullable or field.nullable)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table, with the metadata of the first part."""
        return pa.schema(self._fields.values(), self._metadata or None)


def with_columns_of(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows of a part as rows of its table, whose columns are those of ``schema``."""
    indices = {column: index for index, column in enumerate(_columns(batch.schema))}
    arrays = []
    for column, field in _columns(schema).items():
        index = indices.get(column)
        if index is None:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            array = batch.column(index)
            arrays.append(array if array.type == field.type else array.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _columns(schema: pa.Schema) -> dict[_Column, pa.Field]:
    seen: Counter[str] = Counter()
    columns = {}
    for field in schema:
        columns[field.name, seen[field.name]] = field
        seen[field.name] += 1
    return columns


def _common(ours: pa.DataType, theirs: pa.DataType) -> pa.DataType | None:
    """Return the type that holds every value of both as it is, ours if possible; None if there is none."""
    if in_parquet(ours) == in_parquet(theirs):
        return ours
    if pa.types.is_null(ours) or pa.types.is_null(theirs):
        return theirs if pa.types.is_null(ours) else ours
    if pa.types.is_integer(ours) and pa.types.is_integer(theirs):
        return _common_integer(ours, theirs)
    if pa.types.is_dictionary(ours) or pa.types.is_dictionary(theirs):
        return _common_dictionary(ours, theirs)
    return _common_nested(ours, theirs)


def _common_integer(ours: pa.DataType, theirs: pa.DataType) -> pa.DataType | None:
    signed = [pa.types.is_signed_integer(data_type) for data_type in (ours, theirs)]
    # An unsigned integer takes a signed one of twice the size.
    sizes = [t.bit_width * (1 if own == any(signed) else 2) for t, own in zip((ours, theirs), signed, strict=True)]
    return _INTEGERS.get((any(signed), max(sizes)))


def _common_dictionary(ours: pa.DataType, theirs: pa.DataType) -> pa.DataType | None:
    """Return a dictionary for two of the same kind, which differ in how they count; else the type of its values."""
    values = [t.value_type if pa.types.is_dictionary(t) else t for t in (ours, theirs)]
    common = _common(*values)
    both = pa.types.is_dictionary(ours) and pa.types.is_dictionary(theirs)
    if common is None or not both or ours.ordered != theirs.ordered:
        return common
    indices = _common_integer(ours.index_type, theirs.index_type)
    return pa.dictionary(indices or pa.int64(), common, ours.ordered)


def _common_nested(ours: pa.DataType, theirs: pa.DataType) -> pa.DataType | None:
    """Return what has the same parts inside, each of them of a type that is common to both."""
    ours, theirs = in_parquet(ours), in_parquet(theirs)
    if ours.id != theirs.id or not pa.types.is_nested(ours) or ours.num_fields != theirs.num_fields:
        return None
    fields = []
    for our_field, their_field in zip(_inner(ours), _inner(theirs), strict=True):
        common = _common(our_field.type, their_field.type)
        if common is None or (pa.types.is_struct(ours) and our_field.name != their_field.name):
            return None
        fields.append(our_field.with_type(common).with_nullable(our_field.nullable or their_field.nullable))
    if pa.types.is_struct(ours):
        return pa.struct(fields)
    if pa.types.is_list(ours):
        return pa.list_(*fields)
    return None


def _inner(data_type: pa.DataType) -> list[pa.Field]:
    return [data_type.field(index) for index in range(data_type.num_fields)]
