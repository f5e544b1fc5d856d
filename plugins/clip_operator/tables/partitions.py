"""Columns that stand in the names of folders and not in the files: ``lang=en/dt=2024-01-01/part-0.parquet``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from typing import Self

from clip_operator.errors import JobError
from clip_operator.tables.table import (
    AddedType,
    AddedValue,
    Chunk,
    Header,
    TableReader,
    TableScan,
    TableWriter,
)

_CHECKED_ROWS = 1024


@dataclass(frozen=True)
class Partitions:
    """What folders say of the rows in them.

    :param types: the columns, in their order.
    :param values: of each file, one for each column.
    """

    types: Mapping[str, AddedType]
    values: Sequence[Sequence[AddedValue]]

    def of(self, files: slice) -> Partitions:
        """Return what is said of some of the files."""
        return Partitions(self.types, self.values[files])


class PartitionedChunk:
    """Consecutive rows with the columns of their folders.

    :param files: of each row, which file it is from.
    """

    def __init__(self, rows: Chunk, files: Sequence[int], columns: Mapping[str, Sequence[AddedValue]]) -> None:
        self.rows = rows
        self._files = files
        self._columns = columns

    @property
    def first_row(self) -> int:
        return self.rows.first_row

    @property
    def size(self) -> int:
        return self.rows.size

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[object]:
        """Return the values of one column, of a folder's or the file's."""
        if name in self._columns:
            return list(self.of_folders(name))
        return self.rows.column(name)

    def of_folders(self, name: str) -> list[AddedValue]:
        """Return the values of a column of the folders."""
        return [self._columns[name][file] for file in self._files]

    def select(self, kept: Sequence[bool]) -> Self:
        return type(self)(self.rows.select(kept), list(compress(self._files, kept)), self._columns)


class PartitionedReader(TableReader):
    """A table in many files, with the columns of their folders behind its own.

    A column that the files have, too, stays as it is there.

    :param table: the files, in the order of ``partitions``.
    """

    def __init__(self, table: TableReader, partitions: Partitions) -> None:
        super().__init__(table.file_type, table.file_names)
        self.table = table
        self._partitions = partitions
        self._scan: TableScan | None = None

    def scan(self) -> TableScan:
        """Count the rows and name the columns; where files have a column of the folders, compare the two in every row.

        :raises JobError: they differ; names the file, the row and the column.
        """
        scan = self.table.scan()
        self._check([name for name in self._partitions.types if name in scan.columns])
        columns = tuple(dict.fromkeys((*scan.columns, *self._partitions.types)))
        self._scan = TableScan(scan.rows, columns, scan.paths)
        self._own = frozenset(self._partitions.types.keys() - scan.columns)
        return self._scan

    def chunks(self, rows: int, segment_rows: int | None = None) -> Iterator[PartitionedChunk]:
        columns = self._columns(self.added)
        for chunk in self.table.chunks(rows, segment_rows):
            yield PartitionedChunk(chunk, self._files_of(chunk), columns)

    @property
    def added(self) -> dict[str, AddedType]:
        """The columns that the files have not, and that are to be written with their rows."""
        if self._scan is None:
            self.scan()
        return {name: column_type for name, column_type in self._partitions.types.items() if name in self._own}

    def header(self) -> Header | None:
        return self.table.header()

    def _columns(self, names: Mapping[str, AddedType] | Sequence[str]) -> dict[str, list[AddedValue]]:
        """Return what each file has of these columns."""
        indices = {name: index for index, name in enumerate(self._partitions.types)}
        return {name: [values[indices[name]] for values in self._partitions.values] for name in names}

    def _files_of(self, chunk: Chunk) -> list[int]:
        starts = self.table.file_starts
        return [bisect_right(starts, row) - 1 for row in range(chunk.first_row, chunk.first_row + len(chunk))]

    def _check(self, names: Sequence[str]) -> None:
        columns = self._columns(names)
        for chunk in self.table.chunks(_CHECKED_ROWS) if names else ():
            for name in names:
                for row, (value, file) in enumerate(zip(chunk.column(name), self._files_of(chunk), strict=True)):
                    if not _agrees(value, said := columns[name][file]):
                        place = chunk.first_row + row - self.table.file_starts[file] + 1
                        raise JobError(
                            f"{self.file_names[file]}: row {place:,} has another value in its column {name!r} than its "
                            f"folder says, which is {said!r}. Take the column out of the files, or mend it, or "
                            "rename the folders"
                        )


def _agrees(value: object, said: AddedValue) -> bool:
    """Tell whether a value in a file is the one that stands in the name of its folder, where everything is a text."""
    if value is None or said is None:
        return said is None and value in (None, "")
    if isinstance(value, bool):
        return str(value).lower() == str(said).lower()
    if isinstance(value, int):
        with suppress(ValueError):
            return int(str(said)) == value
    return str(value) == str(said)


class PartitionedWriter(TableWriter):
    """Rows with the columns of their folders as columns of their own.

    :param writer: takes the rows of the files, with these columns and those that are added.
    :param names: the columns of the folders.
    """

    def __init__(self, writer: TableWriter, names: Sequence[str]) -> None:
        self._writer = writer
        self._names = names

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        if not isinstance(chunk, PartitionedChunk):
            raise TypeError(f"a {type(chunk).__name__} does not come from the table that this one is like")
        self._writer.write(chunk.rows, {name: chunk.of_folders(name) for name in self._names} | dict(added))

    def close(self) -> None:
        self._writer.close()

    def discard(self) -> None:
        self._writer.discard()
