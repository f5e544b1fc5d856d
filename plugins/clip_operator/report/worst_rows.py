"""The rows with the lowest scores, as a table to download: CSV that spreadsheets open, and run nothing of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from clip_operator.report.samples import Sample
from clip_operator.steps import worst_rows_uri
from clip_operator.storage import ObjectNotFound, ObjectTooLarge, Storage

MOST_WORST_ROWS = 1000
"""How many rows are listed, at most."""

_COLUMNS = ("row", "score", "image", "text", "sentence", "sentence_score")
_MOST_BYTES = 32 << 20  # of rows with the longest texts

# With a byte order mark, without which Excel takes the text for one in an old encoding.
_ENCODING = "utf-8-sig"

# What spreadsheets begin a formula with, also in the wide form of Chinese and Japanese.
_BEGINS_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def as_csv(rows: Iterable[Sample]) -> bytes:
    """Return a table of rows.

    A text that a spreadsheet would take for a formula has an apostrophe before it, so that it is shown as it is.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_COLUMNS)
    writer.writerows([_cell(getattr(row, name)) for name in _COLUMNS] for row in rows)
    return text.getvalue().encode(_ENCODING)


def read_worst_rows(storage: Storage, output: str) -> list[Sample] | None:
    """Return the rows in the list of an output, texts as they stand there, or None if there is none to be read."""
    try:
        text = storage.read(worst_rows_uri(output), _MOST_BYTES).decode(_ENCODING)
        rows = [_row(cells) for cells in csv.DictReader(io.StringIO(text, newline=""), strict=True)]
    except (ObjectNotFound, ObjectTooLarge, ValueError, csv.Error):  # a model's own errors are ValueErrors
        return None
    return rows if len(rows) <= MOST_WORST_ROWS else None


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_BEGINS_FORMULA) else value


def _row(cells: Mapping[str, str]) -> Sample:
    known = {name: cells[name] for name in _COLUMNS if cells.get(name)}
    return Sample.model_validate({"row": None, "image": "", "text": None, **known})
