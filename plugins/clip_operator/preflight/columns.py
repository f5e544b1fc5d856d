"""The input before anything is done with it: every row well formed, the columns there, their names free."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from clip_operator.errors import JobError
from clip_operator.request import EvaluationRequest
from clip_operator.storage import display
from clip_operator.tables import TableFormat, TableReader, TableScan

log = logging.getLogger(__name__)

_SHOWN_COLUMNS = 50


@contextmanager
def open_checked(
    open_input: Callable[[Sequence[str]], TableReader], request: EvaluationRequest
) -> Iterator[tuple[TableReader, TableScan]]:
    """Open a copy of the input, every row of which has been seen to be well formed and to fit the request's columns.

    :param open_input: opens the copy, given the columns that will be asked for.
    :raises JobError: it is not; the message names the input, and the line or the column.
    """
    with ExitStack() as stack:
        try:
            table = stack.enter_context(open_input(named_columns(request)))
            scan = table.scan()
        except JobError as error:
            raise JobError(f"{display(request.input)}: {error}") from None
        if request.shard is None and not scan.rows:
            log.warning("%s has no rows: the output will have none", display(request.input))
        if scan.rows or scan.columns:  # lines that are none have no columns to miss
            check_columns(_all_columns(scan, table, request), request)
        yield table, scan


def _all_columns(scan: TableScan, table: TableReader, request: EvaluationRequest) -> Sequence[str]:
    """Return the columns of the table, and of a shard of JSON also those that only other shards may have."""
    if request.shard is None or table.file_type.format not in (TableFormat.JSON, TableFormat.JSONL):
        return scan.columns
    read = (request.input_image_key, request.input_text_key)
    for key in read:
        if key not in scan.columns:
            log.warning("No row of this shard has %r", key)
    return tuple(dict.fromkeys((*scan.columns, *read)))


def named_columns(request: EvaluationRequest) -> tuple[str, ...]:
    """Return the columns that the request reads and adds."""
    return (request.input_image_key, request.input_text_key, *request.added_columns)


def check_columns(columns: Sequence[str], request: EvaluationRequest) -> None:
    """Raise :class:`JobError` unless the columns to read are among these and the columns to add are not.

    :param columns: all that the input has.
    """
    missing = [key for key in (request.input_image_key, request.input_text_key) if key not in columns]
    if missing:
        present = ", ".join(map(repr, columns[:_SHOWN_COLUMNS])) + (" …" if len(columns) > _SHOWN_COLUMNS else "")
        hint = ""
        if len(columns) == 1 and (delimiter := next((d for d in ";\t|" if d in columns[0]), None)):
            hint = f". Is {delimiter!r} its delimiter? CSV files need commas"
        raise JobError(
            f"{display(request.input)} has no column {' and no column '.join(map(repr, missing))}; "
            f"its columns are {present}{hint}"
        )
    check_free([key for key in request.added_columns if key in columns], request)


def check_free(occupied: Sequence[str], request: EvaluationRequest) -> None:
    """Raise :class:`JobError` if columns to add are there already and may not be replaced.

    :param occupied: the columns to add that the input has.
    """
    if occupied and not request.overwrite:
        raise JobError(
            f"{display(request.input)} has a column {' and a column '.join(map(repr, occupied))} already; "
            "choose another output_key or error_key, or set overwrite=True to replace its values"
        )
