"""Reads the columns in the names of folders, as Hive, Spark, Arrow and DuckDB write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from clip_operator.errors import JobError
from clip_operator.storage import ObjectInfo, canonical, display
from clip_operator.tables import AddedType, AddedValue, Partitions

_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)


def partitions_of(folder: str, files: Sequence[ObjectInfo]) -> Partitions | None:
    """Return what folders such as ``lang=en/`` below a folder say of the files in them; None where there are none.

    A column is one of integers if all its values are, in the spelling that a number has; else its texts stay as they
    are: ``01`` is no number, nor is a date anything but its text.

    :param folder: its URI, with a slash at its end.
    :raises JobError: not all files lie in folders of the same columns, or one in two of the same; names the files.
    """
    found = [_pairs(info.uri, inside(folder, info.uri).split("/")[:-1]) for info in files]
    names = list(found[0])
    for info, pairs in zip(files, found, strict=True):
        if pairs.keys() != found[0].keys():
            raise JobError(
                f"{display(info.uri)} lies in folders of the columns ({', '.join(pairs) or 'none'}), and "
                f"{display(files[0].uri)} in those of ({', '.join(names) or 'none'}), so that they are not one table; "
                "move the files, or read one of the folders"
            )
    if not names:
        return None
    types = {name: _type_of([pairs[name] for pairs in found]) for name in names}
    return Partitions(types, [[_value(pairs[name], types[name]) for name in names] for pairs in found])


def _type_of(texts: Sequence[str | None]) -> AddedType:
    known = [text for text in texts if text is not None]
    return AddedType.INT64 if known and all(map(_INTEGER.fullmatch, known)) else AddedType.STRING


def _value(text: str | None, column_type: AddedType) -> AddedValue:
    return int(text) if text is not None and column_type is AddedType.INT64 else text


def inside(folder: str, uri: str) -> str:
    """Return where a file is, from its folder on."""
    return canonical(uri).removeprefix(canonical(folder))


def _pairs(uri: str, segments: Sequence[str]) -> dict[str, str | None]:
    pairs: dict[str, str | None] = {}
    for segment in segments:
        name, equals, text = segment.partition("=")
        if not name or not equals:
            continue
        name = _decoded(name, uri)
        if name in pairs:
            raise JobError(f"{display(uri)} lies in two folders of the column {name!r}; rename one of them")
        pairs[name] = None if text == _NULL else _decoded(text, uri)
    return pairs


def _decoded(text: str, uri: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()
    except UnicodeError:
        raise JobError(f"{display(uri)}: the name of one of its folders is not UTF-8; rename it") from None
    return decoded
