"""Finds the part files that a folder or a pattern stands for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from clip_operator.errors import JobError, RequestError
from clip_operator.inputs.table_logs import check_in_no_table, check_no_log
from clip_operator.steps import is_beside_output
from clip_operator.storage import ObjectInfo, ObjectNotFound, Storage, canonical, display, name_of, parent
from clip_operator.tables import FileType, file_type_of

WILDCARDS = re.compile(r"[*?]")
_WILD = {"*": ".*", "?": "."}


def files_in_folder(storage: Storage, uri: str) -> list[ObjectInfo]:
    """Return the part files below a folder, at any depth, in plain string order of their URIs.

    Left out is what writers of part files put beside them: names, of files and of folders, that start with a dot or an
    underscore; objects without content and type that stand for a folder; and this package's own bookkeeping.

    :raises ObjectNotFound: there is no such file.
    :raises JobError: they are files of a table whose log tells which of them are live.
    """
    files = []
    for info in storage.list(uri):
        check_no_log(uri, info)
        if _is_part(inner := info.uri.removeprefix(uri), info) and not is_hidden(inner.split("/")):
            files.append(info)
    if not files:
        raise ObjectNotFound(f"{display(uri)} is an empty folder, or there is none: no file to read was found in it")
    check_in_no_table(storage, uri)
    return sorted(files, key=lambda info: info.uri)


def files_matching(storage: Storage, pattern: str) -> list[ObjectInfo]:
    """Return the files in one folder whose names match, in plain string order of their URIs.

    Hidden names match only a pattern that begins as they do.

    :raises ObjectNotFound: there is no such file.
    :raises JobError: they are files of a table whose log tells which of them are live.
    """
    wanted = name_of(pattern)
    folder = pattern.removesuffix(wanted)
    files = [
        info
        for info in storage.list(folder + re.split(WILDCARDS, wanted, maxsplit=1)[0])
        if "/" not in (name := info.uri.removeprefix(folder))
        and matches(name_of(canonical(info.uri)), pattern)
        and _is_part(name, info)
    ]
    if not files:
        raise ObjectNotFound(f"{display(pattern)} matches no file in {display(folder)}")
    check_in_no_table(storage, folder)
    return sorted(files, key=lambda info: info.uri)


def matches(name: str, pattern: str) -> bool:
    """Tell whether an object's name, with the letters that it has on the disk, matches the last part of a pattern."""
    wanted = name_of(pattern)
    plain = unquote if pattern.lower().startswith("file://") else str
    parts = (_WILD.get(part) or re.escape(plain(part)) for part in re.split(r"([*?])", wanted))
    shown = wanted[0] in "._" or not is_hidden([name])
    return shown and re.fullmatch("".join(parts), name, re.DOTALL) is not None


def one_type_of(uri: str, files: Sequence[ObjectInfo]) -> FileType:
    """Return the file type that all files have.

    :raises JobError: they have several, or one that is no table's; the message says which, and a pattern that would do.
    """
    types = {info.uri: _type_of(info.uri) for info in files}
    known = {found for found in types.values() if isinstance(found, FileType)}
    if len(known) == 1 and len(set(types.values())) == 1:
        return known.pop()
    counted = Counter(str(found) for found in types.values()).most_common()
    found = ", ".join(f"{count:,} {ending}" for ending, count in counted)
    if not known:
        raise JobError(f"{display(uri)} holds no table to read, only {found}")
    example = next(where for where, found in types.items() if isinstance(found, FileType))
    raise JobError(
        f"{display(uri)} holds files of several types ({found}), which are not one table; name those to read with a "
        f"pattern such as {display(parent(example))}/*.{types[example]}"
    )


def _type_of(uri: str) -> FileType | str:
    """Return the file type, or what else the name ends in."""
    try:
        return file_type_of(uri)
    except RequestError:
        _, dot, ending = name_of(uri).rpartition(".")
        return ending[:20] if dot else "without an ending"


def _is_part(inner: str, info: ObjectInfo) -> bool:
    name = name_of(inner)
    if not name or is_beside_output(inner):
        return False
    return info.size > 0 or isinstance(_type_of(name), FileType)  # a part file may be empty, a marker always is


def is_hidden(segments: Iterable[str]) -> bool:
    """Tell whether a file is one that readers of folders pass over, by its name or those of its folders.

    A column whose name begins with an underscore hides no folder: ``_year=2024``.
    """
    return any(segment.startswith(".") or (segment.startswith("_") and "=" not in segment) for segment in segments)
