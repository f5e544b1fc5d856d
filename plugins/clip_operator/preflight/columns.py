"""The input before anything is done with it: every row well formed, the columns there, their names free."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from clip_operator.errors import Cancelled, JobError
from clip_operator.request import EvaluationRequest
from clip_operator.storage import display
from clip_operator.tables import DELIMITED, FileType, TableFormat, TableReader, TableScan

log = logging.getLogger(__name__)

_SHOWN_COLUMNS = 50
_SHOWN_CHARACTERS = 64

# What columns of data sets are called. That a file has one of these says nothing of it that is a secret.
_COMMON_NAMES = (
    *("alt_text", "caption", "captions", "description", "file", "file_name", "filename", "filepath", "id", "image"),
    *("image_path", "image_url", "img", "img_path", "key", "label", "name", "path", "prompt", "sentence", "text"),
    *("title", "uri", "url"),
)


class OpenInput(Protocol):
    """Opens a table, as ``open_table`` does where it is said which."""

    def __call__(self, columns: Sequence[str], /, *, pair: tuple[str, str]) -> TableReader: ...


@contextmanager
def open_checked(open_input: OpenInput, request: EvaluationRequest) -> Iterator[tuple[TableReader, TableScan]]:
    """Open a copy of the input, every row of which has been seen to be well formed and to fit the request's columns.

    :param open_input: opens the copy, given the columns that will be asked for, the image and the caption among them.
    :raises JobError: it is not; the message names the input, and the line or the column.
    """
    with ExitStack() as stack:
        try:
            pair = (request.input_image_key, request.input_text_key)
            table = stack.enter_context(open_input(named_columns(request), pair=pair))
            scan = table.scan()
        except Cancelled:
            raise
        except JobError as error:
            raise JobError(f"{display(request.input)}: {error}") from None
        if request.shard is None and not scan.rows:
            log.warning("%s has no rows: the output will have none", display(request.input))
        if scan.rows or scan.columns:  # lines that are none have no columns to miss
            check_columns(_all_columns(scan, table, request), table.file_type, request, scan.paths)
        yield table, scan


def _all_columns(scan: TableScan, table: TableReader, request: EvaluationRequest) -> Sequence[str]:
    """Return the columns of the table, and of a shard of JSON also those that only other shards may have."""
    if request.shard is None or table.file_type.format not in (TableFormat.JSON, TableFormat.JSONL):
        return scan.columns
    read = (request.input_image_key, request.input_text_key)
    for key in read:
        if key not in scan.columns and key not in scan.paths:
            log.warning("No row of this shard has %r", key)
    return tuple(dict.fromkeys((*scan.columns, *read)))


def named_columns(request: EvaluationRequest) -> tuple[str, ...]:
    """Return the columns that the request reads and adds."""
    return (request.input_image_key, request.input_text_key, *request.added_columns)


def check_columns(
    columns: Sequence[str], file_type: FileType, request: EvaluationRequest, paths: Sequence[str] = ()
) -> None:
    """Raise :class:`JobError` unless the columns to read are among these and the columns to add are not.

    :param columns: all that the input has.
    :param file_type: the input's.
    :param paths: paths to what is inside of them, at least those that the request reads.
    """
    missing = [key for key in (request.input_image_key, request.input_text_key) if key not in (*columns, *paths)]
    if missing:
        raise JobError(
            f"{display(request.input)} has no column {' and no column '.join(map(repr, missing))}; "
            f"its {_shown(columns, file_type, request)}{_shown_paths(paths)}{_dialect_hint(columns)}"
        )
    check_free([key for key in request.added_columns if key in columns], request)


def _dialect_hint(columns: Sequence[str]) -> str:
    """Return what may have to be said of a CSV file whose columns look so."""
    if any("\0" in name for name in columns):
        return ". Is it UTF-16 without a byte order mark? Then set encoding to utf-16-le or utf-16-be"
    if len(columns) == 1 and (delimiter := next((mark for mark in ";,\t|" if mark in columns[0]), None)):
        return f". Is {delimiter!r} its delimiter? Then set delimiter to it"
    return ""


def _shown(columns: Sequence[str], file_type: FileType, request: EvaluationRequest) -> str:
    """Return what columns there are; of CSV only names that are no secret, unless one that was asked for is there.

    Any text reads as CSV, and its first line as a header: a file that is no table, or another's, has secrets there.
    """
    names = columns[:_SHOWN_COLUMNS]
    more = " …" if len(columns) > len(names) else ""
    if file_type.format in DELIMITED and not set(named_columns(request)) & set(columns):
        names = [name for name in names if name.lower() in _COMMON_NAMES]
        if not names:
            return f"{len(columns):,} columns have other names, left unsaid here, for the first line may be no header"
        more = f" and {len(columns) - len(names):,} others" if len(names) < len(columns) else ""
    shown = (repr(f"{n[:_SHOWN_CHARACTERS]}…" if len(n) > _SHOWN_CHARACTERS else n) for n in names)
    return f"columns are {', '.join(shown)}{more}"


def _shown_paths(paths: Sequence[str]) -> str:
    """Return which values inside of columns can be named, too."""
    shown = ", ".join(repr(path) for path in paths[:_SHOWN_COLUMNS] if len(path) <= _SHOWN_CHARACTERS)
    return f"; inside of them there are {shown}" if shown else ""


def check_free(occupied: Sequence[str], request: EvaluationRequest) -> None:
    """Raise :class:`JobError` if columns to add are there already and may not be replaced.

    :param occupied: the columns to add that the input has.
    """
    if occupied and not request.overwrite:
        raise JobError(
            f"{display(request.input)} has a column {' and a column '.join(map(repr, occupied))} already; "
            "choose another output_key or error_key, or set overwrite=True to replace its values"
        )
