"""What the header, the footer or the first rows of a large input tell of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from clip_operator.errors import Cancelled, JobError
from clip_operator.preflight.columns import named_columns
from clip_operator.request import EvaluationRequest
from clip_operator.storage import ObjectInfo, Storage
from clip_operator.tables import Chunk, FileType, open_table

log = logging.getLogger(__name__)

_ROWS = 16

# A Parquet file ends with its footer, the footer's length in four bytes, and the format's mark in four.
_PARQUET_END_BYTES = 8

# What is larger has tens of thousands of columns or row groups, and takes its time to be read.
_MOST_FOOTER_BYTES = 8 << 20


def footer_columns(
    storage: Storage, source: ObjectInfo, request: EvaluationRequest
) -> tuple[Sequence[str], Sequence[str]] | None:
    """Return the columns of a Parquet file, and paths to what is inside; None if its footer cannot be read.

    Nothing else is read. Of the paths there are those that the request reads, if they lead anywhere.

    :raises StorageError: the object cannot be read.
    :raises ModuleNotFoundError: there is no pyarrow here.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from clip_operator.tables.parquet.columns import schema_paths
    from clip_operator.tables.parquet.trial import shared_trial

    end = storage.read_range(source.uri, -_PARQUET_END_BYTES, _PARQUET_END_BYTES)
    length = int.from_bytes(end[:4], "little") + _PARQUET_END_BYTES
    if length > min(_MOST_FOOTER_BYTES, source.size):
        return None
    try:
        with NamedTemporaryFile() as alone:
            alone.write(storage.read_range(source.uri, -length, length))
            alone.flush()
            shared_trial().footer(Path(alone.name))
            schema = pq.read_schema(alone.name)
            return tuple(schema.names), schema_paths(schema, named_columns(request))
    except (pa.ArrowException, OSError) as error:
        log.debug("The footer of %s cannot be read: %s", source.uri, error)
        return None


def header_columns(path: Path, file_type: FileType, request: EvaluationRequest) -> Sequence[str] | None:
    """Return the columns that a CSV file's first line names; None if it cannot be read, and for other formats.

    :param path: the start of the file, cut off anywhere.
    """
    with open_table(path, file_type, named_columns(request)) as table:
        try:
            header = table.header()
        except Cancelled:
            raise
        except JobError as error:
            log.debug("The header cannot be read: %s", error)
            return None
        return None if header is None else header.names


def first_rows(path: Path, file_type: FileType, request: EvaluationRequest) -> Chunk | None:
    """Return the first rows of a text file; None if there is none, or one that cannot be read.

    :param path: the start of the file, cut off anywhere.
    """
    with open_table(path, file_type, named_columns(request)) as table:
        try:
            return next(iter(table.chunks(_ROWS)), None)
        except Cancelled:
            raise
        except JobError as error:  # perhaps only because the file is cut off here
            log.debug("The first rows cannot be read: %s", error)
            return None
