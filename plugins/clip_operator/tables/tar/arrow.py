"""The rows of tars as Arrow has them, all of their fields as strings, for Parquet."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from clip_operator.tables.parquet.schema import Template
from clip_operator.tables.tar.sample import COLUMNS, MEMBERS, Sample

_GROUP_ROWS = 65_536


def _schema(named: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.list_(pa.string()) if name == MEMBERS else pa.string()) for name in (*COLUMNS, *named)])


def template_of(rows: int, named: Sequence[str]) -> Template:
    """Return what a Parquet file of this many rows is like."""
    whole, rest = divmod(rows, _GROUP_ROWS)
    return Template(_schema(named), (), [_GROUP_ROWS] * whole + [rest] * bool(rest))


def batch_of(samples: Sequence[Sample], named: Sequence[str]) -> pa.RecordBatch:
    """Return the rows; a field that a row has not is null."""
    return pa.RecordBatch.from_pylist([sample.fields for sample in samples], _schema(named))
