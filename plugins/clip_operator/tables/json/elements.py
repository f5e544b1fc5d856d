"""Parses one JSON text that holds a table: an array of objects, or an object of which one member is such an array."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from itertools import count
from typing import NamedTuple

from clip_operator.errors import JobError
from clip_operator.tables import text_files
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.json.coco import ANNOTATIONS, CocoImages, joined
from clip_operator.tables.json.members import WHITESPACE, parse
from clip_operator.tables.json.reader import JsonRow, kind_of, not_an_object, parse_object
from clip_operator.tables.json.window import Window
from clip_operator.tables.text_files import BYTE_ORDER_MARK, row_too_long, width_of

EMPTY_ARRAY = "[]"

_SHOWN_NAME = 64
_SHOWN_LISTS = 8


class _Piece(NamedTuple):
    """Some of the text. All pieces in order are all of it.

    :param fields: of an element of a list of objects; None for any other text.
    :param table: the number of the list, from 0, in which that element is.
    """

    text: str
    fields: dict[str, object] | None = None
    table: int = 0


class Document:
    """A text that is one JSON value, or a span of it, read once from the beginning to the end.

    Of an object the table is its one member that is a list of objects. Without any, the object itself is the only row,
    unless it is nothing but an empty list.

    :param fragment: which span of the text it is, cut between two elements of the table.
    :param images: what :meth:`coco_images` has returned of the whole text: of COCO's lists the annotations are the
        table, and each has the name of its image as a field more.
    """

    def __init__(
        self, blocks: Iterator[str], fragment: Fragment = WHOLE, images: Mapping[object, str] | None = None
    ) -> None:
        self._window = Window(blocks)
        self._fragment = fragment
        self._images = images
        self._lists: list[str] = []  # of objects, by name
        self._elements_read = 0  # of the list that was read last
        self._is_object = False
        self.is_row = False
        """Whether an object without a list of objects is the only row."""
        self.around: tuple[str, ...] = ()
        """The members of the object beside the table that were met so far."""
        self._opening = self._closing = ""

    def rows(self) -> Iterator[JsonRow]:
        """Yield the objects of the table with the text before each and behind the last.

        :raises JobError: at the first element that is not an object, or where the text does not go on as it should; or
            if there are several tables.
        """
        around, row = _Around(), None
        for piece in self._pieces():
            if piece.fields is None or not self._is_table(piece.table):
                around.add(piece.text)
                continue
            if row is not None:
                yield row
            row = JsonRow(around.taken(), piece.text, "", piece.fields)
            if self._images is not None:
                row = joined(row, self._images)
            self._opening = self._opening or row.before.rstrip(WHITESPACE)
        if len(self._lists) > 1 and self._images is None:
            raise _several(self._lists)
        if row is not None:
            after = around.taken()
            self._closing = after.lstrip(WHITESPACE)
            yield row._replace(after=after)
        elif self._is_object:
            yield from self._only_row(around.taken())

    def _is_table(self, number: int) -> bool:
        return number == 0 if self._images is None else self._lists[number] == ANNOTATIONS

    def coco_images(self) -> Mapping[object, str] | None:
        """Return the names of the images by id, if this is laid out as COCO's captions are; reads all of an object.

        :raises JobError: what :meth:`rows` raises, or they take too much memory.
        """
        images = CocoImages()
        for number, piece in enumerate(self._pieces()):
            if number and not self._is_object:
                return None
            if piece.fields is not None:
                images.add(self._lists[piece.table], piece.fields)
        return images.of(self._lists)

    def _only_row(self, text: str) -> Iterator[JsonRow]:
        """Yield the row that an object without a list of objects is, unless it is nothing but an empty list."""
        if self._fragment != WHOLE:
            raise JobError("The span holds an object at top level, without a list of rows")
        row = text.removeprefix(BYTE_ORDER_MARK).strip(WHITESPACE)
        fields = parse_object(row, "the object")
        if list(fields.values()) == [[]]:
            return
        self.around, self.is_row = (), True
        start = text.index("{")
        yield JsonRow(text[:start], row, text[start + len(row) :], fields)

    def ends(self) -> tuple[str, str] | None:
        """Return the rest of an object whose list was read: all up to the list's bracket, and all from the other on."""
        return (self._opening, self._closing) if self._is_object and self._opening else None

    def text_without_rows(self) -> str:
        """Return the whole text, if there are no rows in it; ``[]`` otherwise."""
        around = _Around()
        for piece in self._pieces():
            if piece.fields is not None:
                return EMPTY_ARRAY
            around.add(piece.text)
        return around.taken()

    def _pieces(self) -> Iterator[_Piece]:
        window = self._window
        if not self._fragment.first:
            is_open = yield from self._behind_element()
        else:
            window.more("the file")
            mark = window.take(1) if window.next == BYTE_ORDER_MARK else ""
            yield _Piece(mark + window.whitespace("the space before the JSON"))
            if not window.next:
                raise JobError("the file is empty, without even an array; write or upload it again, or leave it out")
            if window.next == "{":
                is_open = yield from self._object()
            elif window.next == "[":
                is_open = yield from self._list(None)
            else:
                raise _no_table(window)
        if not is_open:
            yield _Piece(self._end())

    def _behind_element(self) -> Generator[_Piece, None, bool]:
        """Yield a span that begins behind an element of the table, up to the closing bracket of all.

        :return: whether the text ends before that, as the span of another than the last fragment does.
        """
        window = self._window
        window.more("the span")
        place = "the space before the span's element 1"
        space = window.whitespace(place)
        if not window.next:
            return True
        if window.next != ",":
            raise _missing_delimiter(window, "the element before the span")
        yield _Piece(space + window.take(1) + window.whitespace(place))
        self._lists.append("")
        if (yield from self._elements("", of_objects=True)):
            return True
        space = window.whitespace("the space behind the list")
        if window.next not in (",", "}"):  # it was an array
            yield _Piece(space)
            return False
        yield _Piece(space)
        is_open = False
        if window.next == ",":
            yield _Piece(window.take(1) + window.whitespace("the space behind the list"))
            is_open = yield from self._members()
        yield _Piece(window.take(1))
        return is_open

    def _object(self) -> Generator[_Piece, None, bool]:
        window = self._window
        self._is_object = True
        yield _Piece(window.take(1) + window.whitespace("the space before the first member"))
        is_open = False
        if window.next != "}":
            is_open = yield from self._members()
        yield _Piece(window.take(1))
        return is_open

    def _members(self) -> Generator[_Piece, None, bool]:
        """Yield members up to the brace that closes the object. Errors number them: names may be secrets."""
        window = self._window
        for number in count(1):
            text, name = window.value(f"the name of member {number}")
            place = f"member {number}"
            space = window.whitespace(place)
            if not isinstance(name, str) or window.next != ":":
                raise JobError(f"{place} is not a name with a colon behind it, so the object is not valid JSON")
            yield _Piece(text + space + window.take(1) + window.whitespace(place))
            tables = len(self._lists)
            if window.next == "[":
                if (yield from self._list(name, f" of {place}")):
                    return True
            else:
                yield _Piece(window.value(place)[0])
            if len(self._lists) == tables:
                self.around = (*self.around, name)[:_SHOWN_LISTS]
            space = window.whitespace(place)
            if window.next == "}":
                yield _Piece(space)
                return False
            if window.next != ",":
                raise _missing_delimiter(window, place, "object")
            yield _Piece(space + window.take(1) + window.whitespace(place))
        raise AssertionError("members without end")

    def _list(self, name: str | None, of: str = "") -> Generator[_Piece, None, bool]:
        """Yield a list from its opening bracket on. Of an array, the elements have to be objects.

        :param name: the member of an object that it is; None for an array.
        :param of: which member that is, for errors.
        """
        window = self._window
        yield _Piece(window.take(1) + window.whitespace(f"the space before element 1{of}"))
        if window.next == "]":
            yield _Piece(window.take(1))
            return False
        of_objects = name is None or window.next == "{"
        if of_objects:
            self._lists.append(name or "")
        return (yield from self._elements(of, of_objects=of_objects))

    def _elements(self, of: str, *, of_objects: bool) -> Generator[_Piece, None, bool]:
        """Yield elements, and the bracket behind the last."""
        window, table = self._window, len(self._lists) - 1
        for number in count(1):
            place = f"element {number}{of}"
            text, value = window.value(place)
            self._elements_read = number
            if not of_objects:
                yield _Piece(text)
            elif isinstance(value, dict):
                yield _Piece(text, value, table)
            else:
                raise not_an_object(place, value)
            gap = window.whitespace(place)
            if not window.next and not self._fragment.last:
                yield _Piece(gap)
                return True
            if window.next == "]":
                yield _Piece(gap + window.take(1))
                return False
            if window.next != ",":
                raise _missing_delimiter(window, place)
            yield _Piece(gap + window.take(1) + window.whitespace(place))
        raise AssertionError("elements without end")

    def _end(self) -> str:
        """Return what stands behind the whole value."""
        space = self._window.whitespace("the space at the end")
        if not self._window.next:
            return space
        if self._is_object:
            raise JobError(
                "There is more text behind the end of the object. If the file has one object a line, name it .jsonl"
            )
        raise JobError(f"There is more text behind the end of the array, after element {self._elements_read}")


class _Around:
    """Text between two rows, which grows, and not without bounds."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._size = 0

    def add(self, text: str) -> None:
        self._texts.append(text)
        self._size += len(text) * width_of(text) if text else 0
        if self._size > text_files.MAX_ROW_LENGTH:
            raise row_too_long("What stands around the list of rows", "Write the list alone, as JSON lines.")

    def taken(self) -> str:
        text = "".join(self._texts)
        self._texts, self._size = [], 0
        return text


def _several(names: list[str]) -> JobError:
    shown = ", ".join(f"{name!r:.{_SHOWN_NAME}}" for name in names[:_SHOWN_LISTS])
    more = " …" if len(names) > _SHOWN_LISTS else ""
    return JobError(
        f"The file holds an object with {len(names):,} lists of objects ({shown}{more}), and which one has the rows "
        "cannot be told. Write that list alone, as JSON lines or as one array. COCO's captions are read as they are, "
        "by one task and not by shards, if images have id and file_name, and annotations image_id and caption"
    )


def _no_table(window: Window) -> JobError:
    found = {'"': "a string"}.get(window.next)
    if found is None:
        try:
            found = kind_of(parse(window.text, window.position)[0])
        except json.JSONDecodeError:
            found = "text that is not JSON"
    return JobError(
        f"The file holds {found} at top level, expected one JSON array of objects, or an object with one in it."
    )


def _missing_delimiter(window: Window, place: str, inside: str = "array") -> JobError:
    if not window.next:
        return JobError(f"The file ends after {place}, before its {inside} is closed: it was cut off.")
    return JobError(f"{place} is not followed by a comma or the end of the {inside}")
