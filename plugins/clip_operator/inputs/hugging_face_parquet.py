"""Writes rows of a Hugging Face data set to a Parquet file, image files put in, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clip_operator.machine.disk import written_to

_ROWS_AT_ONCE = 32
_GROUP_ROWS = 4096
_GROUP_BYTES = 32 << 20
_MOST_IMAGE_BYTES = 256 << 20


def write_parquet(rows: Any, path: Path, image_folders: Sequence[Path]) -> None:
    """Write every row with all columns as they are stored; nothing is decoded.

    An image that the data set names instead of holding it is put in if it is a file below one of the folders. Any other
    path in it was written by somebody else, and might lead to any file of this machine: it is left for the loader of
    images to judge.

    :param rows: a ``datasets.Dataset``.
    :raises JobError: the disk does not take the file.
    """
    schema: pa.Schema = rows.features.arrow_schema
    images = [name for name, feature in rows.features.items() if type(feature).__name__ == "Image"]
    folders = [folder.resolve() for folder in image_folders]
    pending: list[pa.Table] = []
    held = held_bytes = 0
    with written_to(path), pq.ParquetWriter(path, schema) as writer:
        for batch in rows.with_format("arrow").iter(_ROWS_AT_ONCE) if len(rows) else ():
            columns = {name: batch.column(name) for name in schema.names}
            for name in images:
                columns[name] = _with_bytes(columns[name], folders)
            pending.append(pa.table(list(columns.values()), schema=schema))
            held += batch.num_rows
            held_bytes += pending[-1].nbytes
            if held >= _GROUP_ROWS or held_bytes >= _GROUP_BYTES:
                writer.write_table(pa.concat_tables(pending))
                pending.clear()
                held = held_bytes = 0
        if pending:
            writer.write_table(pa.concat_tables(pending))


def _with_bytes(column: pa.ChunkedArray, folders: Sequence[Path]) -> pa.ChunkedArray:
    """Return the images with the bytes of those that are files below the folders."""
    chunks = []
    for chunk in column.chunks:
        if chunk.field("bytes").null_count:
            chunk = pa.array([_image(value, folders) for value in chunk.to_pylist()], chunk.type)
        chunks.append(chunk)
    return pa.chunked_array(chunks, column.type)


def _image(value: dict[str, Any] | None, folders: Sequence[Path]) -> dict[str, Any] | None:
    if value is None or value["bytes"] is not None or not value["path"]:
        return value
    try:
        path = Path(value["path"])
        file = path.resolve()
        inside = path.is_absolute() and any(file.is_relative_to(folder) for folder in folders)
        if not inside or not file.is_file() or file.stat().st_size > _MOST_IMAGE_BYTES:
            return value
        return {"bytes": file.read_bytes(), "path": path.name}
    except (OSError, ValueError, RuntimeError):  # no such file, no such path, a loop of links: a row's matter
        return value
