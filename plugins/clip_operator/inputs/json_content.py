"""Tells JSON lines from a single JSON value where the name ends in ``.json``, as many writers name both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clip_operator.errors import Cancelled, JobError
from clip_operator.storage import ObjectInfo, Storage, StorageError
from clip_operator.tables import FileType, TableFormat, is_json_lines

# Files of a single row each do not tell, and to look for one that does takes a request each.
_MOST_FILES = 16


def as_it_is(storage: Storage, files: Sequence[ObjectInfo], file_type: FileType) -> FileType:
    """Return the file type by what is in the files: JSONL if one of the first that can tell has one object a line.

    :param file_type: what their names say.
    :raises StorageError: they cannot be read.
    """
    if file_type.format is not TableFormat.JSON:
        return file_type
    found = (_is_lines(storage, info, file_type) for info in files[:_MOST_FILES])
    is_lines = next((known for known in found if known is not None), False)
    return replace(file_type, format=TableFormat.JSONL) if is_lines else file_type


def _is_lines(storage: Storage, info: ObjectInfo, file_type: FileType) -> bool | None:
    try:
        with storage.open(info) as stream:
            return is_json_lines(stream, file_type)
    except (Cancelled, StorageError):
        raise
    except JobError:  # it is no text; whoever reads it says so
        return None
