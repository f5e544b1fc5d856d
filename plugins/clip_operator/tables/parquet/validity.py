"""Checks that Arrow's arrays are sound: what is read of a damaged file may point outside of its own memory."""

from __future__ import annotations

import pyarrow as pa

_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def check_sound(batch: pa.RecordBatch) -> None:
    """Look at every offset and every dictionary index of a batch.

    Text that is not UTF-8 is sound: it goes into the output as it is.

    :raises pyarrow.ArrowInvalid: if one points to where nothing is.
    """
    for column in batch.columns:
        as_bytes = _as_bytes(column.type)
        (column if as_bytes == column.type else column.view(as_bytes)).validate(full=True)


def _as_bytes(data_type: pa.DataType) -> pa.DataType:
    """Return the type with bytes in place of texts, whose memory looks the same."""
    if pa.types.is_dictionary(data_type):
        return pa.dictionary(data_type.index_type, _as_bytes(data_type.value_type), data_type.ordered)
    if pa.types.is_struct(data_type):
        return pa.struct([_field_as_bytes(field) for field in data_type])
    if pa.types.is_list(data_type):
        return pa.list_(_field_as_bytes(data_type.value_field))
    if pa.types.is_large_list(data_type):
        return pa.large_list(_field_as_bytes(data_type.value_field))
    if pa.types.is_fixed_size_list(data_type):
        return pa.list_(_field_as_bytes(data_type.value_field), data_type.list_size)
    if pa.types.is_map(data_type):
        return pa.map_(_field_as_bytes(data_type.key_field), _field_as_bytes(data_type.item_field))
    return _BYTES.get(data_type, data_type)


def _field_as_bytes(field: pa.Field) -> pa.Field:
    return field.with_type(_as_bytes(field.type))
