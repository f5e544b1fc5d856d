"""What the readers and writers of the text formats share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from clip_operator.errors import JobError
from clip_operator.tables import table
from clip_operator.tables.file_types import FileType
from clip_operator.tables.fragment import Fragment
from clip_operator.tables.table import Chunk
from clip_operator.tables.text_files import TextOutput

RowT_contra = TypeVar("RowT_contra", contravariant=True)


class GrowingChunk(Chunk, Protocol[RowT_contra]):
    """A chunk to which rows are added while it is being read.

    :param size: characters of text in it.
    """

    size: int

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


class TextReader:
    """A text file, a span of one, or several files as one table; every pass opens them for itself.

    :param source: a file whose text is the table's, or the span of it that `fragment` tells; or any number of files
        that are tables each, whose rows come one behind the other.
    :param columns: the names whose values chunks hold ready.
    :param fragment: the place of the rows in the whole table.
    """

    def __init__(
        self, source: Path | Sequence[Path], file_type: FileType, columns: Sequence[str] | None, fragment: Fragment
    ) -> None:
        self._paths = (source,) if isinstance(source, Path) else tuple(source)
        self.joined = not isinstance(source, Path)
        """Whether these are whole tables, so that the text between their rows is not all of one file."""
        self.fragment = fragment
        self._file_type = file_type
        self._columns = tuple(dict.fromkeys(columns or ()))

    def _of_all_files(self, rows_of: Callable[[Path], Iterator[RowT]]) -> Iterator[RowT]:
        """The rows of the file, or of each file in turn, whose errors then name it."""
        if not self.joined:
            return rows_of(self._paths[0])
        return chain.from_iterable(_with_name(path, rows_of) for path in self._paths)

    @property
    def file_type(self) -> FileType:
        """The format and compression of the file."""
        return self._file_type

    def close(self) -> None:
        """Nothing stays open between passes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _with_name(path: Path, rows_of: Callable[[Path], Iterator[RowT]]) -> Iterator[RowT]:
    with errors_explained(path):
        yield from rows_of(path)


@contextmanager
def errors_explained(path: Path) -> Iterator[None]:
    """Put the file's name in front of every :class:`JobError`: of several files, it says which."""
    try:
        yield
    except JobError as error:
        raise JobError(f"{path.name}: {error}") from error


class TextWriter:
    """One new text file, completed at the end or removed after an error."""

    def __init__(self, path: Path, file_type: FileType) -> None:
        self._output = TextOutput(path, file_type.gzip)

    def close(self) -> None:
        """Complete the file."""
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._output.discard()
