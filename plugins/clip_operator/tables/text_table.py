"""What the readers and writers of the text formats share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from clip_operator.tables import table
from clip_operator.tables.file_types import FileType
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


def in_chunks(rows: Iterable[RowT], most: int, new_chunk: Callable[[int], ChunkT]) -> Iterator[ChunkT]:
    """Yield all rows in chunks of at most ``most`` rows, fewer where rows are large; none is empty.

    :param new_chunk: makes an empty chunk, given the index of its first row.
    """
    chunk = new_chunk(0)
    for row in rows:
        chunk.add(row)
        if len(chunk) >= most or chunk.size >= table.CHUNK_BYTES:
            yield chunk
            chunk = new_chunk(chunk.first_row + len(chunk))
    if len(chunk):
        yield chunk


class TextReader:
    """A text file that every pass opens for itself.

    :param columns: the names whose values chunks hold ready.
    """

    def __init__(self, path: Path, file_type: FileType, columns: Sequence[str] | None) -> None:
        self._path = path
        self._file_type = file_type
        self._columns = tuple(dict.fromkeys(columns or ()))

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
