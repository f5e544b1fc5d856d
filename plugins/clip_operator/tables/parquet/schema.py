"""Works out what a new Parquet file takes over of the input: schema, metadata, codecs and row groups."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clip_operator.tables.parquet.columns import column_index
from clip_operator.tables.table import AddedType

ARROW_TYPES: Mapping[AddedType, pa.DataType] = {
    AddedType.FLOAT64: pa.float64(),
    AddedType.STRING: pa.string(),
    AddedType.FLOAT64_LIST: pa.list_(pa.float64()),
}

# The writer adds this key itself. If a file has it in its own metadata, too, Arrow does not read what is written of it.
_ARROW_SCHEMA = b"ARROW:schema"
_HUGGINGFACE = b"huggingface"
_PANDAS = b"pandas"


@dataclass(frozen=True)
class Template:
    """What a new Parquet file takes over of the table whose rows it holds.

    :param schema: its columns, with their metadata.
    :param metadata: a footer that tells how the columns are written; None for Arrow's own way.
    :param group_sizes: the number of rows of each row group.
    """

    schema: pa.Schema
    metadata: pq.FileMetaData | None
    group_sizes: Sequence[int]


def with_columns(schema: pa.Schema, added: Mapping[str, AddedType]) -> pa.Schema:
    """Return the schema with each added column in the place of the one of its name, or behind the last one.

    Hugging Face ``datasets`` reads its feature types from the file's metadata and refuses a column it does not find
    there, so the added columns are entered. pandas' description of a replaced column is removed: it told another type.

    :raises JobError: if the schema has several columns of an added name.
    """
    metadata = dict(schema.metadata or {})
    metadata.pop(_ARROW_SCHEMA, None)
    replaced = []
    for name, column_type in added.items():
        field = pa.field(name, ARROW_TYPES[column_type])
        index = column_index(schema, name)
        if index is None:
            schema = schema.append(field)
        else:
            schema = schema.set(index, field)
            replaced.append(name)
    if _HUGGINGFACE in metadata:
        metadata[_HUGGINGFACE] = _with_features(metadata[_HUGGINGFACE], added)
    if _PANDAS in metadata and replaced:
        metadata[_PANDAS] = _without_pandas_columns(metadata[_PANDAS], replaced)
    return schema.with_metadata(metadata or None)


def _with_features(raw: bytes, added: Mapping[str, AddedType]) -> bytes:
    described = _json_object(raw)
    info = described.get("info")
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict):
        return raw
    for name, column_type in added.items():
        features[name] = {"dtype": column_type.value, "_type": "Value"}
    return json.dumps(described).encode()


def _without_pandas_columns(raw: bytes, names: list[str]) -> bytes:
    described = _json_object(raw)
    columns = described.get("columns")
    if not isinstance(columns, list):
        return raw
    described["columns"] = [
        column for column in columns if not (isinstance(column, dict) and column.get("field_name") in names)
    ]
    return json.dumps(described).encode()


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def leaf_options(schema: pa.Schema, metadata: pq.FileMetaData | None) -> dict[str, Any]:
    """Return the writer's options that keep each leaf's codec, its dictionary, and INT96 where all times are INT96.

    :param schema: the input's schema.
    :param metadata: the input's footer; None for Arrow's own way.
    """
    if metadata is None or not metadata.num_row_groups:
        return {}
    first_group = metadata.row_group(0)
    # Leaves are matched by position: other writers name the inner fields of lists and maps differently.
    paths = _leaf_paths(schema)
    leaves = [first_group.column(index) for index in range(first_group.num_columns)]
    if len(paths) != len(leaves):
        return {}
    return {
        "compression": {path: _codec(leaf.compression) for path, leaf in zip(paths, leaves, strict=True)},
        "use_dictionary": [
            path
            for path, leaf in zip(paths, leaves, strict=True)
            if any("DICTIONARY" in encoding for encoding in leaf.encodings)
        ],
        "use_deprecated_int96_timestamps": _only_int96(metadata.schema),
    }


def _only_int96(leaves: pq.ParquetSchema) -> bool:
    """Tell whether all columns of times have the deprecated type, for which the writer has a single switch."""
    columns = [leaves.column(index) for index in range(len(leaves.names))]
    times = {column.physical_type for column in columns if column.logical_type.type == "TIMESTAMP"}
    return not times and any(column.physical_type == "INT96" for column in columns)


def _leaf_paths(schema: pa.Schema) -> list[str]:
    sink = io.BytesIO()
    pq.ParquetWriter(sink, schema.remove_metadata()).close()
    leaves = pq.ParquetFile(io.BytesIO(sink.getvalue())).schema
    return [leaves.column(index).path for index in range(len(leaves.names))]


def _codec(compression: str) -> str:
    return {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}.get(compression, compression)
