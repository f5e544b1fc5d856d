"""Adds or replaces members in the raw text of a JSON object and leaves every other character as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from clip_operator.tables.table import AddedValue

WHITESPACE = " \t\n\r"

_NO_WHITESPACE = re.compile(r"[ \t\n\r]*")
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_NEXT = re.compile(r"[ \t\n\r]*[,}][ \t\n\r]*")
_LINE_BREAK = re.compile(r"[\n\r][ \t\n\r]*")

_decoder = json.JSONDecoder()
# An integer longer than the interpreter agrees to convert is still valid JSON; as a value it is only ever "a number".
_long_integer_decoder = json.JSONDecoder(parse_int=float)
# Finds where values end without converting any number.
_span_decoder = json.JSONDecoder(parse_int=str, parse_float=str)


def parse(text: str, position: int = 0) -> tuple[object, int]:
    """Return one JSON value that starts at `position`, and where it ends.

    :raises json.JSONDecodeError: if there is none.
    :raises RecursionError: if it is nested deeper than the interpreter follows.
    """
    try:
        return _decoder.raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _long_integer_decoder.raw_decode(text, position)


def json_string(text: str) -> str:
    """Return a string as a JSON literal, in ASCII only if it holds anything that a line or a terminal trips over."""
    literal = json.dumps(text, ensure_ascii=False)
    # False for lone surrogates, which UTF-8 cannot hold, and for U+2028, at which some readers end a line.
    return literal if literal.isprintable() else json.dumps(text)


def json_literal(value: AddedValue) -> str:
    """Return an added value as JSON: null, a number with all its digits, a string, or an array of numbers."""
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return f"[{', '.join(map(float.__repr__, value))}]"
    return json_string(value) if isinstance(value, str) else repr(value)


def without_line_breaks(text: str) -> str:
    """Put valid JSON text on one line: a line break and the indentation behind it become a space, or none in a bracket.

    A raw line break cannot occur inside a JSON string, so strings and numbers stay as they are.
    """
    if "\n" not in text and "\r" not in text:
        return text
    return _LINE_BREAK.sub(_joint, text)


def _joint(line_break: re.Match[str]) -> str:
    text = line_break.string
    in_bracket = text[line_break.start() - 1] in "[{" or text[line_break.end()] in "]}"
    return "" if in_bracket else " "


class Member(NamedTuple):
    """Where one member of an object stands in the object's text."""

    key: str
    key_start: int
    key_end: int
    value_start: int
    value_end: int


def members(text: str) -> list[Member]:
    """Return the members of an object in order, duplicates included.

    :param text: a valid JSON object, from its opening to its closing brace.
    """
    found: list[Member] = []
    position = _match_end(_NO_WHITESPACE, text, 1)
    if text[position] == "}":
        return found
    end = len(text)
    while position < end:
        key, key_end = _span_decoder.raw_decode(text, position)
        value_start = _match_end(_COLON, text, key_end)
        value_end = _span_decoder.raw_decode(text, value_start)[1]
        found.append(Member(key, position, key_end, value_start, value_end))
        position = _match_end(_NEXT, text, value_end)
    return found


def _match_end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    if match is None:
        raise ValueError("not the text of a valid JSON object")
    return match.end()


class MemberWriter:
    """Sets the same members in many objects.

    An existing member has its value replaced where it stands, every time the key occurs. A new member goes behind the
    last one, with the white space that the last one has around its comma and colon.

    :param names: the keys, in the order in which new members are appended.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._keys = tuple(json_string(name) for name in names)

    def set(self, text: str, literals: Sequence[str]) -> str:
        """Return the object's text with each key set to its literal.

        :param text: a valid JSON object, from its opening to its closing brace.
        :param literals: JSON literals, one a key.
        """
        found = members(text)
        separator, colon = _style(text, found)
        end = found[-1].value_end if found else 1
        replaced: list[tuple[int, int, str]] = []
        appended = ""
        for name, key, literal in zip(self._names, self._keys, literals, strict=True):
            spans = [(member.value_start, member.value_end, literal) for member in found if member.key == name]
            if spans:
                replaced += spans
            elif found or appended:
                appended += f"{separator}{key}{colon}{literal}"
            else:
                appended = f"{key}{colon}{literal}"
        if not replaced:
            return text[:end] + appended + text[end:]
        return _spliced(text, [*sorted(replaced), (end, end, appended)])


def _style(text: str, found: Sequence[Member]) -> tuple[str, str]:
    """Return what stands before a key, comma included, and between a key and its value."""
    if not found:
        return ", ", ": "
    last = found[-1]
    colon = text[last.key_end : last.value_start]
    if len(found) > 1:
        return text[found[-2].value_end : last.key_start], colon
    indentation = text[1 : last.key_start]
    if "\n" in indentation:
        return "," + indentation, colon
    return ", " if colon[-1] in WHITESPACE else ",", colon


def _spliced(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    pieces: list[str] = []
    position = 0
    for start, end, replacement in edits:
        pieces += (text[position:start], replacement)
        position = end
    pieces.append(text[position:])
    return "".join(pieces)
