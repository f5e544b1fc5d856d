"""The table formats that there are: a folder each, with the same doors in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from clip_operator.tables import csv, parquet, tar
from clip_operator.tables.file_types import FileType, TableFormat
from clip_operator.tables.fragment import Fragment
from clip_operator.tables.json import array, lines
from clip_operator.tables.table import AddedType, TableReader, TableWriter
from clip_operator.tables.text_files import MeasuredText

if TYPE_CHECKING:
    import pyarrow as pa


class Format(Protocol):
    """A module with the doors of one format.

    Its writer takes any table that ``check_conversion`` lets become the format. Of another format's table it looks at
    what the reader and the chunks offer (a header, ``objects()``, ``batches()``), not at which format it is.
    """

    def open_reader(
        self,
        path: Path | Sequence[Path],
        file_type: FileType,
        columns: Sequence[str] | None,
        fragment: Fragment,
        row_groups: range | None,
        schema: pa.Schema | None,
        pair: tuple[str, str] | None,
        /,
    ) -> TableReader:
        """Open what :func:`~clip_operator.tables.open_table` opens."""

    def create_writer(
        self, path: Path, file_type: FileType, added: Mapping[str, AddedType], like: TableReader, fragment: Fragment, /
    ) -> TableWriter:
        """Create what :func:`~clip_operator.tables.create_table` creates."""

    def create_selection(self, path: Path, like: TableReader, /) -> TableWriter:
        """Create what :func:`~clip_operator.tables.create_selection` creates; ``like`` is of this format."""


@runtime_checkable
class TextFormat(Format, Protocol):
    """A format that is a text, which can be cut between any two rows."""

    def row_ends(self, text: MeasuredText, /) -> Iterator[int]:
        """Yield where the header ends, 0 where there is none, and then where each row ends, in bytes of the text.

        :raises JobError: what ``scan()`` raises.
        """


FORMATS: Mapping[TableFormat, Format] = {
    TableFormat.JSONL: lines,
    TableFormat.JSON: array,
    TableFormat.CSV: csv,
    TableFormat.TSV: csv,
    TableFormat.PARQUET: parquet,
    TableFormat.TAR: tar,
}
