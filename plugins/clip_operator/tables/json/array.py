"""One JSON array of objects, alone or as the one such member of an object, with the text around its elements kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from clip_operator.errors import JobError
from clip_operator.tables.file_types import FileType
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.json.elements import EMPTY_ARRAY, Document
from clip_operator.tables.json.reader import JsonChunk, JsonReader, JsonRow
from clip_operator.tables.json.writer import JsonWriter, ObjectChunk, SameLayoutWriter
from clip_operator.tables.table import AddedType, AddedValue, Chunk, TableReader, TableWriter
from clip_operator.tables.text_files import MeasuredText, read_blocks, size_in_bytes

_ARRAY_START = "[\n"
_ARRAY_JOINT = ",\n"
_ARRAY_END = "\n]\n"
_BLOCK_BYTES = 1024 * 1024


class JsonArrayReader(JsonReader):
    """One JSON array of objects, at top level or as the one such member of the object there.

    A span that is not the first begins right behind an element, with the comma; one that is not the last ends there.
    """

    _document: Document | None = None
    _around: tuple[str, ...] = ()
    _looked_at: Path | None = None
    _images: Mapping[object, str] | None = None

    def _rows(self) -> Iterator[JsonRow]:
        return self._of_all_files(self._rows_of)

    def _rows_of(self, path: Path) -> Iterator[JsonRow]:
        self._document = document = self._opened(path)
        yield from document.rows()
        if self._images is None:
            self._around = self._around or document.around

    def _opened(self, path: Path) -> Document:
        fragment = WHOLE if self.joined else self.fragment
        if fragment == WHOLE and path != self._looked_at:
            self._images = None
            self._images = Document(read_blocks(path, self.file_type.compression)).coco_images()
            self._looked_at = path
        return Document(read_blocks(path, self.file_type.compression), fragment, self._images)

    def ends(self) -> tuple[str, str] | None:
        """Return the rest of an object that the rows are in, as far as the last pass over the file has come."""
        return None if self._document is None else self._document.ends()

    def is_row(self) -> bool:
        """Tell whether the last pass over the file has found one object that is the only row."""
        return self._document is not None and self._document.is_row

    def empty_text(self) -> str:
        """Return the text of a table without rows, if this is one and the only file; any other gives ``[]``."""
        return self._opened(self._paths[0]).text_without_rows()

    def check_nothing_around(self) -> None:
        """Refuse to write the rows where what stands around them has no place.

        :raises JobError: a pass over the file has met members of the object beside the list of rows.
        """
        if self._around:
            raise JobError(
                f"The rows are a list in an object that has other members, too ({', '.join(map(repr, self._around))}), "
                "which JSON lines, part files and what is made of many files have no place for. Write one file to one "
                "file, with json for the format of the output, or take the list out of the object"
            )


class SameArrayWriter(SameLayoutWriter):
    """JSON to JSON: the brackets, commas and indentation are the input's.

    :param like: the input, whose text is also the output's where it has no elements.
    """

    def __init__(self, path: Path, file_type: FileType, added: Mapping[str, AddedType], like: JsonArrayReader) -> None:
        super().__init__(path, file_type, added, like)
        self._like = like
        self._end: str | None = None

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        super().write(chunk, added)
        if isinstance(chunk, JsonChunk) and chunk.after:
            self._end = chunk.after[-1]

    def close(self) -> None:
        """Complete the file.

        :raises JobError: if the input's last element was not written, so that the array would stay open.
        """
        if self._end is None:
            if self._like.fragment == WHOLE:
                self._append(self._like.empty_text())
        elif not self._end and self._like.fragment.last and not self._like.is_row():
            self.discard()
            raise JobError("The output was closed before the last element of the input's array was written.")
        super().close()


class ArrayWriter(JsonWriter):
    """Anything to JSON whose text around the rows is not kept: one array, each object on a new line.

    :param fragment: the place of these rows in the array. A fragment takes it that the others have rows, so that there
        is a comma before every one but the first. If it has none itself, it is empty; see
        :func:`~clip_operator.tables.join_arrays` for tables whose first or last fragment is.
    """

    def __init__(
        self, path: Path, file_type: FileType, added: Mapping[str, AddedType], like: TableReader, fragment: Fragment
    ) -> None:
        super().__init__(path, file_type, added, like)
        self._fragment = fragment
        self._separator = _ARRAY_START if fragment.first else _ARRAY_JOINT
        self._rows = 0

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        objects = self._objects(chunk, added)
        if objects:
            self._append(self._separator + _ARRAY_JOINT.join(objects))
            self._separator = _ARRAY_JOINT
            self._rows += len(objects)

    def close(self) -> None:
        if self._rows and self._fragment.last:
            self._append(_ARRAY_END)
        elif not self._rows and self._fragment == WHOLE:
            self._append(EMPTY_ARRAY)
        super().close()


class SelectionWriter(ArrayWriter):
    """Some of the rows of a table: a new array, or a new list in the object that the table is in; ``[]`` for none.

    :param like: the table, which tells what the object has around the list while it is read.
    """

    def __init__(self, path: Path, like: JsonArrayReader) -> None:
        super().__init__(path, like.file_type, {}, like, WHOLE)
        self._like = like

    def _before(self, chunk: ObjectChunk) -> Sequence[str]:
        return chunk.texts if isinstance(chunk, JsonChunk) else chunk.objects()

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        if not self._rows and (ends := self._like.ends()):
            self._separator = ends[0] + _ARRAY_START[1:]
        super().write(chunk, added)

    def close(self) -> None:
        if self._rows and (ends := self._like.ends()):
            self._append(_ARRAY_END[0] + ends[1])
            self._close_file()
        else:
            super().close()


open_reader: Callable[..., TableReader] = JsonArrayReader


def create_writer(
    path: Path, file_type: FileType, added: Mapping[str, AddedType], like: TableReader, fragment: Fragment, /
) -> TableWriter:
    """Create an array: the input's own, or a new one if the input is of many files, of lines, or of another place.

    :raises JobError: it is a new one, and the input has more than rows.
    """
    if isinstance(like, JsonArrayReader):
        if not like.joined and like.fragment == fragment:
            return SameArrayWriter(path, file_type, added, like)
        like.check_nothing_around()
    return ArrayWriter(path, file_type, added, like, fragment)


def create_selection(path: Path, like: TableReader, /) -> TableWriter:
    """Create a new array for elements that stay as they are, with the text around it if it is in an object."""
    if isinstance(like, JsonArrayReader):
        return SelectionWriter(path, like)
    raise TypeError(f"a {type(like).__name__} does not read this format")


def row_ends(text: MeasuredText, /) -> Iterator[int]:
    """Yield 0, for there is no header, and then where each element ends."""
    yield 0
    end = 0
    for row in Document(text.read(read_blocks)).rows():
        end += size_in_bytes(row.before) + size_in_bytes(row.text)
        yield end


class BytesTarget(Protocol):
    """Anything that bytes can be written to."""

    def write(self, data: bytes, /) -> object: ...


def join_arrays(sources: Iterable[BinaryIO], target: BytesTarget) -> None:
    """Write one JSON array of the outputs of consecutive fragments: what a single writer would have written.

    To put the outputs one behind the other gives the same, unless the first fragment or the last one has no rows. The
    writer of another one then could not know that it had to open or close the array.

    :param sources: the outputs of a writer to JSON that did not keep the input's layout; empty where there was no row.
    """
    opened = closed = False
    for source in sources:
        start = source.read(len(_ARRAY_JOINT))
        if start in (b"", EMPTY_ARRAY.encode()):
            continue
        target.write(start if opened else _ARRAY_START.encode())
        opened, end = True, b""
        while block := source.read(_BLOCK_BYTES):
            target.write(block)
            end = (end + block)[-len(_ARRAY_END) :]
        closed = end == _ARRAY_END.encode()
    if not closed:
        target.write((_ARRAY_END if opened else EMPTY_ARRAY).encode())
