"""Knows tables whose log tells which of their files are live: to read all files would bring dead rows back."""

from __future__ import annotations

import re
from contextlib import suppress

from clip_operator.errors import JobError
from clip_operator.storage import AccessDenied, ObjectInfo, Storage, display, name_of, parent

_LIVE_ROWS = {
    "Delta Lake": 'DeltaTable("…").to_pyarrow_dataset() of the package deltalake',
    "Apache Hudi": "Spark",
    "Apache Iceberg": 'load_table("…").scan().to_arrow_batch_reader() of the package pyiceberg',
}
_OR_ELSE = {
    "Delta Lake": "Name the folder that the log stands in, with the extra delta installed where this runs. Or else: "
}
_LOGS = {
    "Delta Lake": re.compile(r"(.*/)?_delta_log/.+", re.DOTALL),
    "Apache Hudi": re.compile(r"(.*/)?\.hoodie/.+", re.DOTALL),
    "Apache Iceberg": re.compile(r"(.*/)?metadata/[^/]+\.metadata\.json", re.DOTALL),
}
_FOLDERS = ("_delta_log/", ".hoodie/", "metadata/")


def check_no_log(folder: str, info: ObjectInfo) -> None:
    """Refuse a folder if one of the objects in it, at any depth, is of such a log.

    :param folder: its URI, with a slash at its end.
    :raises JobError: it is; says how to have the live rows as files.
    """
    inner = info.uri.removeprefix(folder)
    for kind, log in _LOGS.items():
        if log.fullmatch(inner):
            raise JobError(
                f"{display(folder)} holds a table of {kind}: which of its files, and which rows of these, are live is "
                f"told by its log, {display(info.uri)}, which is not read here. {_OR_ELSE.get(kind, '')}Write the live "
                f"rows to Parquet files in a folder of their own, with {_LIVE_ROWS[kind]}, and read that"
            )


def check_in_no_table(storage: Storage, folder: str) -> None:
    """Refuse a folder that is the root of such a table, or one of the folders in which a table keeps its files.

    :param folder: its URI, with a slash at its end.
    :raises JobError: it is.
    """
    _check(storage, folder)
    while "=" in (name := name_of(folder.rstrip("/"))) or name == "data":
        folder = f"{parent(folder.rstrip('/'))}/"
        _check(storage, folder)


def _check(storage: Storage, folder: str) -> None:
    for name in _FOLDERS:
        with suppress(AccessDenied):  # who may not list a folder has named another one
            for info in storage.list(f"{folder}{name}"):
                check_no_log(folder, info)
