"""What every format offers: a reader that scans and gives chunks, a chunk of rows, a writer that adds columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from clip_operator.errors import Cancelled, JobError
from clip_operator.tables.file_types import FileType

CHUNK_BYTES = 8 * 1024 * 1024
"""A chunk of rows ends early when it holds about this much (characters of text, bytes of Parquet's values)."""

AddedValue = float | str | tuple[float, ...] | None


class UnreadableValue:
    """Stands in a chunk's column for a value that Python has no equal of, such as a string that is not UTF-8.

    It goes into the output as it is, but it is neither a caption nor an image.
    """


class AddedType(StrEnum):
    """The type of a column that a writer adds."""

    FLOAT64 = "float64"
    INT64 = "int64"
    STRING = "string"
    FLOAT64_LIST = "list of float64"
    """In CSV its cells are JSON."""


@dataclass(frozen=True)
class TableScan:
    """What one pass over a table tells.

    :param rows: the number of rows.
    :param columns: the top-level field names. Parquet: the schema's; CSV: the header's; JSON and JSONL: every name seen
        in any row, in order of first appearance, up to a bound (names given to ``open_table`` are past that bound too).
    :param paths: paths to values inside of columns, see ``paths``: those given to ``open_table`` that lead anywhere,
        and some others, for people to choose from.
    """

    rows: int
    columns: tuple[str, ...]
    paths: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Header:
    """The first record of a CSV file."""

    text: str
    names: tuple[str, ...]

    def index(self, name: str) -> int | None:
        """Return the position of a column, None if there is none.

        :raises JobError: if several columns have the name.
        """
        if self.names.count(name) > 1:
            raise JobError(
                f"The CSV header names the column {name!r} {self.names.count(name)} times; rename all but one."
            )
        return self.names.index(name) if name in self.names else None


class Chunk(Protocol):
    """Consecutive rows of a table, still in their own encoding.

    What a format's writer takes of another format's rows, a chunk offers by one more method: JSON takes ``objects()``,
    Parquet takes ``batches()``.
    """

    @property
    def first_row(self) -> int:
        """The index of the first row in the table, from 0."""

    @property
    def size(self) -> int:
        """Roughly how much it holds: characters of text, bytes of Parquet's values."""

    def __len__(self) -> int: ...

    def column(self, name: str) -> list[object]:
        """Return the Python values of one top-level field, one a row; None where it is absent or null.

        Where there is no such field, the name may be a path to values inside of one, see ``paths``.

        :class:`UnreadableValue` where Python has no such value.
        """

    def select(self, kept: Sequence[bool]) -> Self:
        """Return the rows at which ``kept``, which has a value for each row, is true."""


class TableReader(AbstractContextManager["TableReader"]):
    """A table in a local file, or in several. Every pass starts from the beginning.

    :param file_type: the format and compression of the files.
    :param file_names: what to call them in messages.
    """

    def __init__(self, file_type: FileType, file_names: Sequence[str]) -> None:
        self.file_type = file_type
        self.file_names = file_names
        self.file_starts: list[int] = []
        """Which row of the table is the first of each file, as far as the files were read already."""

    @abstractmethod
    def scan(self) -> TableScan:
        """Count the rows and name the columns. Text formats: parses every row; Parquet: reads the footer.

        :raises JobError: at the first thing that cannot be read, naming the line or element.
        """

    @abstractmethod
    def chunks(self, rows: int, segment_rows: int | None = None) -> Iterator[Chunk]:
        """Yield all rows in order, at most `rows` in a chunk, fewer where they are large (``CHUNK_BYTES``); none empty.

        :param segment_rows: a chunk also ends wherever so many rows of the table, or a multiple, are complete.
        :raises JobError: at the first thing that cannot be read, naming the line or element.
        """

    def header(self) -> Header | None:
        """Return what names the columns in front of the rows; None in a format that has no such text.

        :raises JobError: if it cannot be read.
        """
        return None

    def close(self) -> None:
        """End the use of the table; no format keeps a file open between two passes."""

    def __exit__(self, *_: object) -> None:
        self.close()


def most_rows(first_row: int, rows: int, segment_rows: int | None) -> int:
    """Return how many rows a chunk may have that begins at this row, see :meth:`TableReader.chunks`."""
    return rows if segment_rows is None else min(rows, segment_rows - first_row % segment_rows)


class TableWriter(ABC):
    """A local file that grows chunk by chunk. Left by an exception, its context manager removes the file."""

    @abstractmethod
    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        """Append the chunk's rows with their new values, one a row for each added column.

        :raises ValueError: if the columns or their lengths are not the announced ones, or a number is not finite.
        """

    @abstractmethod
    def close(self) -> None:
        """Complete the file. It is not a table before this returns."""

    @abstractmethod
    def discard(self) -> None:
        """Close and remove the file, whatever state it is in."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


@contextmanager
def errors_explained(name: str) -> Iterator[None]:
    """Put a file's name in front of every :class:`JobError`: of several files, it says which."""
    try:
        yield
    except Cancelled:
        raise
    except JobError as error:
        raise JobError(f"{name}: {error}") from error


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return what to call the files of one table in messages: their names, with as many folders as tell them apart."""
    depth = 1
    while len(names := {path.parts[-depth:] for path in paths}) < len(set(paths)) and max(map(len, names)) == depth:
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]
