"""Checks that Arrow's arrays are sound: what is read of a damaged file may point outside of its own memory."""

from __future__ import annotations

import pyarrow as pa

from clip_operator.tables.parquet.types import changed

_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def check_sound(batch: pa.RecordBatch) -> None:
    """Look at every offset and every dictionary index of a batch.

    Text that is not UTF-8 is sound: it goes into the output as it is.

    :raises pyarrow.ArrowInvalid: if one points to where nothing is.
    """
    for column in batch.columns:
        as_bytes = changed(column.type, _as_bytes)  # whose memory looks the same
        (column if as_bytes == column.type else column.view(as_bytes)).validate(full=True)


def _as_bytes(data_type: pa.DataType) -> pa.DataType:
    return _BYTES.get(data_type, data_type)
