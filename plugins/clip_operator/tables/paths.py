"""Names of values inside a column's objects and lists: ``meta.caption``, ``conversation[0].value``.

A path is the name of a column, and then, as often as needed, a dot and the name of a member, or the index of an
element, from 0, in brackets. Names with dots or brackets in them are not reached by it; a column that is called just
like the path is meant before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice

Steps = tuple[str | int, ...]

_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[[0-9]{1,9}\])+")
_STEP = re.compile(r"\[([0-9]+)\]|([^.\[\]]+)")

MOST_PATHS = 32
"""How many paths are told to people."""

DEEPEST = 4
"""How many levels below its column a path that is told may lead."""

_FIRST_ELEMENTS = 2
_LONGEST_NAME = 64

_ABSENT = object()


@lru_cache(maxsize=256)
def path_of(name: str) -> Steps | None:
    """Return the steps of a path, the column first; None for a name that is no path."""
    if _PATH.fullmatch(name) is None:
        return None
    return tuple(int(index) if index else step for index, step in _STEP.findall(name))


def value_at(value: object, steps: Sequence[str | int], default: object = None) -> object:
    """Return what a value holds at the end of the steps; the default where there is no such thing."""
    for step in steps:
        if isinstance(step, str):
            value = value.get(step, _ABSENT) if isinstance(value, dict) else _ABSENT
        else:
            value = value[step] if isinstance(value, list) and step < len(value) else _ABSENT
        if value is _ABSENT:
            return default
    return value


def field_of(fields: Mapping[str, object], name: str, default: object = None) -> object:
    """Return the field of a row that has this name, or else what is at this path; the default if there is neither."""
    if name in fields or (steps := path_of(name)) is None:
        return fields.get(name, default)
    return value_at(fields.get(str(steps[0]), _ABSENT), steps[1:], default)


def has_field(fields: Mapping[str, object], name: str) -> bool:
    """Tell whether a row has a field of this name, or anything at this path, be it null."""
    return field_of(fields, name, _ABSENT) is not _ABSENT


def texts_in(fields: Mapping[str, object]) -> Iterator[str]:
    """Yield paths to the first texts in the objects and lists of a row."""
    for name, value in fields.items():
        yield from islice(_texts_below(name, value, DEEPEST), MOST_PATHS)


def _texts_below(path: str, value: object, levels: int) -> Iterator[str]:
    inner: list[tuple[str, object]] = []
    if isinstance(value, dict):
        inner = [(f"{path}.{name}", below) for name, below in value.items() if len(name) <= _LONGEST_NAME]
    elif isinstance(value, list):
        inner = [(f"{path}[{index}]", below) for index, below in enumerate(value[:_FIRST_ELEMENTS])]
    for name, below in inner if levels else []:
        if isinstance(below, str) and path_of(name) is not None:
            yield name
        else:
            yield from _texts_below(name, below, levels - 1)
