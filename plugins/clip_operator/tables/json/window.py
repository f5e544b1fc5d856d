"""The part of a long JSON text that is being looked at, and the values in it, one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from clip_operator.tables import text_files
from clip_operator.tables.json.members import parse
from clip_operator.tables.json.reader import nested_too_deeply, not_valid
from clip_operator.tables.text_files import check_values, row_too_long, width_of

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_LONGEST_CUT_TOKEN = 16
"""The parser reports a token cut off by the end of the text at most this far before that end; strings aside."""


class Window:
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

    def value(self, place: str) -> tuple[str, object]:
        """Return the text of the value that begins here, and the value.

        :raises JobError: there is none, or one that is too large; the message begins with the place.
        """
        while True:
            start = self.position
            try:
                value, end = parse(self.text, start)
            except json.JSONDecodeError as error:
                if _is_cut_off(error):
                    check_values(self.text[start:], place)  # all of it belongs to the value, so far
                    if self.more(place):
                        continue
                raise not_valid(place, error, start) from None
            except RecursionError as error:
                raise nested_too_deeply(place) from error
            if isinstance(value, (int, float)) and len(self.text) - end <= _LONGEST_CUT_TOKEN and self.more(place):
                continue  # the number may go on
            if end - start > text_files.MAX_ROW_LENGTH:
                raise row_too_long(place)
            text = self.take(end - start)
            check_values(text, place)
            return text, value


def _is_cut_off(error: json.JSONDecodeError) -> bool:
    """Tell whether more text could cure the error, so that a broken value is reported without reading far past it."""
    if len(error.doc) - error.pos <= _LONGEST_CUT_TOKEN:
        return True
    if error.doc[error.pos] != '"':
        return False
    try:
        parse(error.doc, error.pos)
    except json.JSONDecodeError:
        return True
    return False
