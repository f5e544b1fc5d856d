"""Parses the text of one JSON array of objects: an element at a time, with the text between the elements kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count

from clip_operator.errors import JobError
from clip_operator.tables import text_files
from clip_operator.tables.fragment import WHOLE, Fragment
from clip_operator.tables.json.members import parse
from clip_operator.tables.json.reader import JsonRow, kind_of, nested_too_deeply, not_an_object, not_valid
from clip_operator.tables.text_files import BYTE_ORDER_MARK, check_values, row_too_long, width_of

EMPTY_ARRAY = "[]"

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_LONGEST_CUT_TOKEN = 16
"""The parser reports a token cut off by the end of the text at most this far before that end; strings aside."""


def elements(blocks: Iterator[str], fragment: Fragment = WHOLE) -> Iterator[JsonRow]:
    """Yield the objects of an array's text, or of a span of it, with the text before each and behind the last.

    :raises JobError: at the first element that is not an object, or where the array does not go on as it should.
    """
    window = _Window(blocks)
    before = _opening(window) if fragment.first else _gap_after_element(window)
    if not before:  # a span without elements
        return
    if fragment.first and window.next == "]":
        _closing(window, 0)
        return
    for number in count(1):
        place = f"element {number}"
        text, fields = _element(window, place)
        gap = window.whitespace(place)
        if window.next == "]" and fragment.last:
            yield JsonRow(before, text, gap + _closing(window, number), fields)
            return
        if not window.next and not fragment.last:
            yield JsonRow(before, text, gap, fields)
            return
        if window.next != ",":
            raise _missing_delimiter(window, place)
        yield JsonRow(before, text, "", fields)
        before = gap + window.take(1) + window.whitespace(place)


def text_without_elements(blocks: Iterator[str]) -> str:
    """Return an array's text, if it has no elements; ``[]`` for any other."""
    window = _Window(blocks)
    text = _opening(window)
    return text + _closing(window, 0) if window.next == "]" else EMPTY_ARRAY


class _Window:
    """The part of a long text that is being looked at."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self._blocks = blocks
        self.text = ""
        self.position = 0

    @property
    def next(self) -> str:
        """The next character; empty at the end of what has been read."""
        return self.text[self.position : self.position + 1]

    def more(self, place: str) -> bool:
        """Forget what was taken and read at least as much again as is left; False at the end of the file.

        Doubling keeps the work linear when an element is longer than a block and is tried again and again.
        """
        pieces = [self.text[self.position :]]
        left, width = len(pieces[0]), width_of(pieces[0])
        new = 0
        for block in self._blocks:
            pieces.append(block)
            new += len(block)
            width = max(width, width_of(block))
            if new and (new >= left or (left + new) * width > text_files.MAX_ROW_LENGTH):
                break
        if left * width > text_files.MAX_ROW_LENGTH:
            raise row_too_long(place)
        self.text = "".join(pieces)
        self.position = 0
        return new > 0

    def take(self, length: int) -> str:
        """Return the next characters, which have been read already."""
        start = self.position
        self.position += length
        return self.text[start : self.position]

    def whitespace(self, place: str) -> str:
        """Return all white space up to the next character; after it, `next` is empty only at the end of the file."""
        while True:
            match = _WHITESPACE.match(self.text, self.position)
            end = match.end() if match else self.position
            if end < len(self.text) or not self.more(place):
                return self.take(end - self.position if end < len(self.text) else len(self.text) - self.position)


def _opening(window: _Window) -> str:
    """Return all before the first element or the closing bracket."""
    window.more("the file")
    mark = window.take(1) if window.next == BYTE_ORDER_MARK else ""
    space = window.whitespace("the space before the array")
    if not window.next:
        raise JobError("the file is empty, without even an array; write or upload it again, or leave it out")
    if window.next != "[":
        raise _not_an_array(window)
    return mark + space + window.take(1) + window.whitespace("the space before element 1")


def _gap_after_element(window: _Window) -> str:
    """Return what stands between the element before a span and its first one; an empty text for a span without any."""
    window.more("the span")
    place = "the space before the span's element 1"
    space = window.whitespace(place)
    if not window.next:
        return ""
    if window.next != ",":
        raise _missing_delimiter(window, "the element before the span")
    return space + window.take(1) + window.whitespace(place)


def _not_an_array(window: _Window) -> JobError:
    found = {"{": "an object", '"': "a string"}.get(window.next)
    if found is None:
        try:
            found = kind_of(parse(window.text, window.position)[0])
        except json.JSONDecodeError:
            found = "text that is not JSON"
    hint = " If it has one object a line, name it .jsonl." if window.next == "{" else ""
    return JobError(f"The file holds {found} at top level, expected one JSON array of objects.{hint}")


def _element(window: _Window, place: str) -> tuple[str, dict[str, object]]:
    while True:
        start = window.position
        try:
            value, end = parse(window.text, start)
        except json.JSONDecodeError as error:
            if _is_cut_off(error):
                check_values(window.text[start:], place)  # all of it belongs to the element, so far
                if window.more(place):
                    continue
            raise not_valid(place, error, start) from None
        except RecursionError as error:
            raise nested_too_deeply(place) from error
        if not isinstance(value, dict):
            raise not_an_object(place, value)
        if end - start > text_files.MAX_ROW_LENGTH:
            raise row_too_long(place)
        text = window.take(end - start)
        check_values(text, place)
        return text, value


def _is_cut_off(error: json.JSONDecodeError) -> bool:
    """Tell whether more text could cure the error, so that a broken element is reported without reading far past it."""
    if len(error.doc) - error.pos <= _LONGEST_CUT_TOKEN:
        return True
    if error.doc[error.pos] != '"':
        return False
    try:
        parse(error.doc, error.pos)
    except json.JSONDecodeError:
        return True
    return False


def _closing(window: _Window, elements: int) -> str:
    """Return the closing bracket and everything behind it; an empty text where there is none at all."""
    end = window.take(1) + window.whitespace("the space after the array")
    if window.next:
        raise JobError(f"There is more text behind the end of the array, after element {elements}")
    return end


def _missing_delimiter(window: _Window, place: str) -> JobError:
    if not window.next:
        return JobError(f"The file ends after {place}, before its array is closed: it was cut off.")
    return JobError(f"{place} is not followed by a comma or the end of the array")
