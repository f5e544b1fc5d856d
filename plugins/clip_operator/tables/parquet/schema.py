"""Works out what a new Parquet file takes over of the input: schema, metadata, codecs and row groups."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clip_operator.tables.parquet.columns import column_index
from clip_operator.tables.table import AddedType

ARROW_TYPES: Mapping[AddedType, pa.DataType] = {
    AddedType.FLOAT64: pa.float64(),
    AddedType.INT64: pa.int64(),
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
    :param parts: the schemas and footers of its parts, which tell how columns are written; none for Arrow's own way.
    :param group_sizes: the number of rows of each row group.
    """

    schema: pa.Schema
    parts: Sequence[tuple[pa.Schema, pq.FileMetaData]]
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


def metadata_of_both(
    ours: Mapping[bytes, bytes], theirs: Mapping[bytes, bytes], changed: set[str], alike: set[str]
) -> dict[bytes, bytes]:
    """Return our metadata for a table that has taken columns, or types of columns, of another part of it.

    Of these Hugging Face's feature types are taken over, too, and where they are not known, none are told: Arrow's
    types then do. pandas' description of such columns is removed.

    :param changed: the names of those columns.
    :param alike: of these, the ones that are of the other part's type.
    """
    metadata = dict(ours)
    if _HUGGINGFACE in metadata:
        described, others = _json_object(metadata[_HUGGINGFACE]), _features(_json_object(theirs.get(_HUGGINGFACE, b"")))
        features = _features(described)
        if changed <= alike & others.keys():
            features.update({name: others[name] for name in changed})
            metadata[_HUGGINGFACE] = json.dumps(described).encode()
        else:
            del metadata[_HUGGINGFACE]
    if _PANDAS in metadata:
        metadata[_PANDAS] = _without_pandas_columns(metadata[_PANDAS], changed)
    return metadata


def _features(described: dict[str, Any]) -> dict[str, Any]:
    """Return the feature types in a description of Hugging Face's, to be changed there."""
    info = described.get("info")
    features = info.get("features") if isinstance(info, dict) else None
    return features if isinstance(features, dict) else {}


def _with_features(raw: bytes, added: Mapping[str, AddedType]) -> bytes:
    described = _json_object(raw)
    features = _features(described)
    if not features:
        return raw
    for name, column_type in added.items():
        features[name] = {"dtype": column_type.value, "_type": "Value"}
    return json.dumps(described).encode()


def _without_pandas_columns(raw: bytes, names: Collection[str]) -> bytes:
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


def leaf_options(schema: pa.Schema, parts: Sequence[tuple[pa.Schema, pq.FileMetaData]]) -> dict[str, Any]:
    """Return the writer's options that keep each leaf's codec, its dictionary, and INT96 where all times are INT96.

    :param schema: the table's schema.
    :param parts: the schemas and footers of its parts; of each leaf, the first one that has it decides.
    """
    seen: list[pa.Schema] = []
    leaves: dict[str, pq.ColumnChunkMetaData] = {}
    only_int96 = False
    for own, metadata in parts:
        if not metadata.num_row_groups or any(map(own.equals, seen)):
            continue
        first_group = metadata.row_group(0)
        # Leaves are matched by position: other writers name the inner fields of lists and maps differently.
        paths = _leaf_paths(own)
        if len(paths) == first_group.num_columns:
            leaves = {path: first_group.column(index) for index, path in enumerate(paths)} | leaves
        only_int96 = only_int96 if seen else _only_int96(metadata.schema)
        seen.append(own)
    if not leaves:
        return {}
    known = {path: leaves[path] for path in _leaf_paths(schema) if path in leaves}
    return {
        "compression": {path: _codec(leaf.compression) for path, leaf in known.items()},
        "use_dictionary": [
            path for path, leaf in known.items() if any("DICTIONARY" in encoding for encoding in leaf.encodings)
        ],
        "use_deprecated_int96_timestamps": only_int96,
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
