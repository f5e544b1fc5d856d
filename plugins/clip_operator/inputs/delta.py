"""Delta Lake's tables: which files are live, and what their partitions are, is told by the table's log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from clip_operator.errors import JobError
from clip_operator.inputs.partitions import inside
from clip_operator.json_text import parse_json
from clip_operator.machine.scratch import scratch_folder
from clip_operator.machine.threads import in_threads
from clip_operator.storage import ObjectInfo, ObjectNotFound, Storage, display, name_of
from clip_operator.tables import AddedType, AddedValue, Partitions

_LOG = "_delta_log/"
_LAST_CHECKPOINT = "_last_checkpoint"
_NAME = re.compile(r"([0-9]{20})\.(?:json|checkpoint(?:\..+)?\.(?:parquet|json))")
_MOST_BYTES = 256 << 20
_MOST_FILES = 10_000
_DOWNLOADS = 16

# What a reader has to know of a table that is read like any other, by the names in its protocol. Deletion vectors and
# mapped columns are looked for in it.
_UNDERSTOOD = {"columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}


def live_files(storage: Storage, folder: str) -> tuple[list[ObjectInfo], Partitions | None] | None:
    """Return the live files of a table, in plain string order of their URIs, and its partitions.

    None where the folder is no table of Delta Lake's, or its library is not installed.

    :param folder: its URI, with a slash at its end.
    :raises JobError: the log cannot be read, or tells that rows are to be left out of files, or that columns are called
        otherwise in them.
    """
    log = [info for info in storage.list(f"{folder}{_LOG}") if _NAME.fullmatch(name_of(info.uri))]
    if not log or find_spec("deltalake") is None:
        return None
    with scratch_folder() as copy:
        _fetch(storage, folder, log, copy)
        live = _live(display(folder), copy)
    there = {inside(folder, info.uri): info for info in storage.list(folder)}
    files: dict[str, tuple[ObjectInfo, Mapping[str, Any]]] = {}
    for path, values in live:
        if (info := there.get(path)) is None:
            raise JobError(
                f"{display(folder)}: the table's log names the file {path[:200]!r}, which is not below the folder; "
                "tables that share files with others, and those whose files were removed, are not read"
            )
        files[info.uri] = info, values
    if not files:
        raise ObjectNotFound(f"{display(folder)} is a table of Delta Lake's without rows: no file of it is live")
    ordered = [files[uri] for uri in sorted(files)]
    return [info for info, _ in ordered], _partitions([values for _, values in ordered])


def _fetch(storage: Storage, folder: str, log: Sequence[ObjectInfo], copy: Path) -> None:
    """Copy the log, from its last checkpoint on."""
    first = _last_checkpoint(storage, f"{folder}{_LOG}{_LAST_CHECKPOINT}")
    wanted = [info for info in log if int(name_of(info.uri)[:20]) >= first]
    size = sum(info.size for info in wanted)
    if size > _MOST_BYTES or len(wanted) > _MOST_FILES:
        raise JobError(
            f"{display(folder)}: the table's log has {len(wanted):,} files with {size:,} bytes since its last "
            f"checkpoint, more than the {_MOST_FILES:,} and {_MOST_BYTES:,} that are read; make a checkpoint: "
            'DeltaTable("…").create_checkpoint()'
        )
    (copy / _LOG).mkdir()
    in_threads(_DOWNLOADS, lambda info: storage.download(info, copy / _LOG / name_of(info.uri)), wanted)


def _last_checkpoint(storage: Storage, uri: str) -> int:
    """Return the version of the last checkpoint that the log tells of; 0 for none."""
    try:
        said = parse_json(storage.read(uri, 1 << 20), 1 << 20)
    except (ObjectNotFound, ValueError):
        return 0
    version = said.get("version") if isinstance(said, dict) else None
    return version if isinstance(version, int) and version > 0 else 0


def _live(shown: str, copy: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Return where each live file is, from the folder on, and the values of its partitions."""
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(str(copy))
        features = set(table.protocol().reader_features or ())
        left_out = "deletionVectors" in features and pa.table(table.deletion_vectors().read_all()).num_rows > 0
        mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
        actions = pa.table(table.get_add_actions())
    except (DeltaError, OSError, ValueError, pa.ArrowException) as error:
        problem = " ".join(str(error).partition("\n")[0].split())[:200]
        raise JobError(f"{shown}: the log of this table of Delta Lake's cannot be read ({problem})") from None
    unknown = sorted(features - _UNDERSTOOD)
    if left_out:
        unknown.append("deletion vectors")
    if mapping != "none":
        unknown.append("mapped columns")
    if unknown:
        raise JobError(
            f"{shown} is a table of Delta Lake's with {', '.join(unknown)}, which is not read here. Write its rows to "
            'Parquet files in a folder of their own, with DeltaTable("…").to_pyarrow_dataset() or Spark, and read that'
        )
    values = actions["partition"].to_pylist() if "partition" in actions.column_names else [{}] * actions.num_rows
    return [(unquote(path), of_file) for path, of_file in zip(actions["path"].to_pylist(), values, strict=True)]


def _partitions(rows: Sequence[Mapping[str, Any]]) -> Partitions | None:
    """Return the partitions' columns: integers as such, all else as the text that stands for it."""
    if not rows[0]:
        return None
    types = {name: _type_of([row[name] for row in rows]) for name in rows[0]}
    return Partitions(types, [[_value(row[name], types[name]) for name in types] for row in rows])


def _type_of(values: Sequence[object]) -> AddedType:
    known = [value for value in values if value is not None]
    integers = all(isinstance(value, int) and not isinstance(value, bool) for value in known)
    return AddedType.INT64 if known and integers else AddedType.STRING


def _value(value: object, column_type: AddedType) -> AddedValue:
    if value is None or (column_type is AddedType.INT64 and isinstance(value, int)):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)
