"""What the formats share whose rows are read one by one: the chunks that they grow into, and the files they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import compress
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from clip_operator.tables import table
from clip_operator.tables.file_types import FileType
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.table import Chunk, TableReader, errors_explained, names_of

RowT_contra = TypeVar("RowT_contra", contravariant=True)


class GrowingChunk(Chunk, Protocol[RowT_contra]):
    """A chunk to which rows are added while it is being read."""

    def add(self, row: RowT_contra) -> None:
        """Append a row."""


RowT = TypeVar("RowT")
ChunkT = TypeVar("ChunkT", bound=GrowingChunk[Any])


def in_chunks(
    rows: Iterable[RowT], most: int, segment_rows: int | None, new_chunk: Callable[[int], ChunkT]
) -> Iterator[ChunkT]:
    """Yield all rows in chunks of at most ``most`` rows, fewer where a segment ends or rows are large; none is empty.

    :param new_chunk: makes an empty chunk, given the index of its first row.
    """
    chunk = new_chunk(0)
    for row in rows:
        chunk.add(row)
        if len(chunk) >= table.most_rows(chunk.first_row, most, segment_rows) or chunk.size >= table.CHUNK_BYTES:
            yield chunk
            chunk = new_chunk(chunk.first_row + len(chunk))
    if len(chunk):
        yield chunk


class TextChunk:
    """Consecutive rows as raw text, with the values of the columns that were announced.

    :param first_row: the index of the first row in the table.
    :param columns: the names whose values are kept when a row is added.
    """

    def __init__(self, first_row: int, columns: Iterable[str]) -> None:
        self.first_row = first_row
        self.size = 0
        self.texts: list[str] = []
        self._values: dict[str, list[object]] = {name: [] for name in columns}

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, kept: Sequence[bool]) -> Self:
        selected = copy(self)
        selected.texts = list(compress(self.texts, kept))
        selected._values = {name: list(compress(values, kept)) for name, values in self._values.items()}
        selected.size = sum(map(len, selected.texts))
        return selected


class RowReader(TableReader):
    """A file, a span of one, or several files as one table; every pass opens them for itself.

    :param source: a file that is the table, or the span of it that `fragment` tells; or any number of files that are
        tables each, whose rows come one behind the other.
    :param columns: the names whose values chunks hold ready.
    :param fragment: the place of the rows in the whole table.
    """

    def __init__(
        self,
        source: Path | Sequence[Path],
        file_type: FileType,
        columns: Sequence[str] | None = None,
        fragment: Fragment = WHOLE,
        *_of_others: object,
    ) -> None:
        self._paths = (source,) if isinstance(source, Path) else tuple(source)
        super().__init__(file_type, names_of(self._paths))
        self.joined = not isinstance(source, Path)
        """Whether these are whole tables, so that the text between their rows is not all of one file."""
        self.fragment = fragment
        self._columns = tuple(dict.fromkeys(columns or ()))

    def _of_all_files(self, rows_of: Callable[[Path], Iterator[RowT]]) -> Iterator[RowT]:
        """Return the rows of the file, or of each file in turn, whose errors then name it."""
        if not self.joined:
            return rows_of(self._paths[0])
        return self._of_each_file(rows_of)

    def _of_each_file(self, rows_of: Callable[[Path], Iterator[RowT]]) -> Iterator[RowT]:
        count = 0
        for index, path in enumerate(self._paths):
            if index == len(self.file_starts):
                self.file_starts.append(count)
            with errors_explained(self.file_names[index]):
                for row in rows_of(path):
                    count += 1
                    yield row
