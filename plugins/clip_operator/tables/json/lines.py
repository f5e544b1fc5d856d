"""JSON Lines: one object a line, each with its own white space and line ending kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.tables import text_files
from clip_operator.tables.file_types import FileType
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.json.array import JsonArrayReader
from clip_operator.tables.json.members import WHITESPACE, without_line_breaks
from clip_operator.tables.json.reader import JsonReader, JsonRow, parse_object
from clip_operator.tables.json.writer import JsonWriter, SameLayoutWriter
from clip_operator.tables.table import AddedType, AddedValue, Chunk, TableReader, TableWriter
from clip_operator.tables.text_files import BYTE_ORDER_MARK, MeasuredText, byte_lines, read_lines

_OBJECT_START = ord("{")


def is_lines(blocks: Iterator[str]) -> bool | None:
    """Tell whether a text is JSON lines and no single value, from no more of it than its first line and a character.

    Inside of one value a brace that closes is never followed by one that opens, so it need not be parsed.

    :return: None where that cannot be told, because the first object stands on one line and nothing comes behind it.
    """
    size, last, has_ended = 0, "", False
    for block in blocks:
        size += len(block)
        text = block.removeprefix(BYTE_ORDER_MARK).lstrip(WHITESPACE) if not last else block
        if not last and text and text[0] != "{":
            return False
        if not has_ended:
            line, line_break, text = text.partition("\n")
            last, has_ended = line.rstrip(WHITESPACE)[-1:] or last, bool(line_break)
        following = text.lstrip(WHITESPACE)[:1]
        if has_ended and (following or last != "}"):
            return (last, following) == ("}", "{")
        if size > text_files.MAX_ROW_LENGTH:
            return False
    return None


class JsonlReader(JsonReader):
    """One JSON object a line. Blank lines are not rows and are dropped."""

    def _rows(self) -> Iterator[JsonRow]:
        rows = self._of_all_files(self._rows_of)
        return map(_complete, rows) if self.joined else rows

    def _rows_of(self, path: Path) -> Iterator[JsonRow]:
        mark = ""
        for number, line in enumerate(read_lines(path, self.file_type.compression), 1):
            if number == 1 and line.startswith(BYTE_ORDER_MARK) and (self.joined or self.fragment.first):
                mark, line = BYTE_ORDER_MARK, line[1:]
            from_object = line.lstrip(WHITESPACE)
            if not from_object:
                continue
            text = from_object.rstrip(WHITESPACE)
            before = mark + line[: len(line) - len(from_object)]
            mark = ""
            yield JsonRow(before, text, from_object[len(text) :], self._parse(text, number))

    def _parse(self, text: str, number: int) -> dict[str, object]:
        try:
            return parse_object(text, f"line {number}")
        except JobError as error:
            if number == 1 and text.startswith("["):
                raise JobError(f"{error}. If the file is one JSON array of objects, name it .json") from error
            raise


def _complete(row: JsonRow) -> JsonRow:
    """Return the row as a line that others can stand before and behind: no byte order mark, and a line feed."""
    after = row.after if row.after.endswith("\n") else row.after + "\n"
    return row._replace(before=row.before.removeprefix(BYTE_ORDER_MARK), after=after)


class LinesWriter(JsonWriter):
    """JSON, CSV or a tar to JSONL: one object a line."""

    def write(self, chunk: Chunk, added: Mapping[str, Sequence[AddedValue]]) -> None:
        self._append("".join([f"{without_line_breaks(text)}\n" for text in self._objects(chunk, added)]))


open_reader: Callable[..., TableReader] = JsonlReader


def create_writer(
    path: Path, file_type: FileType, added: Mapping[str, AddedType], like: TableReader, _fragment: Fragment, /
) -> TableWriter:
    """Create a file of lines: the input's own, or one for each object.

    :raises JobError: the input has more than rows.
    """
    if isinstance(like, JsonArrayReader):
        like.check_nothing_around()
    writer = SameLayoutWriter if isinstance(like, JsonlReader) else LinesWriter
    return writer(path, file_type, added, like)


def create_selection(path: Path, like: TableReader, /) -> TableWriter:
    """Create a file of lines that stay as they are."""
    return create_writer(path, like.file_type, {}, like, WHOLE)


def row_ends(text: MeasuredText, /) -> Iterator[int]:
    """Yield 0, for there is no header, and then where each line ends that is a row; what it holds is not looked at."""
    yield 0
    for line in text.read(byte_lines):
        if not _is_blank(line, first=text.size == len(line)):
            yield text.size


def _is_blank(line: bytes, first: bool) -> bool:
    """Tell whether a line is not a row.

    :param first: it is the file's first one, at whose beginning a byte order mark is not text.
    """
    if line[0] == _OBJECT_START:  # nearly every row
        return False
    if first:
        line = line.removeprefix(BYTE_ORDER_MARK.encode())
    return not line.strip(WHITESPACE.encode())
