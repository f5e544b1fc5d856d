"""What image paths look like that lead nowhere here: written for another machine, or in another way."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import takewhile

from clip_operator.errors import Reason
from clip_operator.images import shown
from clip_operator.inputs.image_access import path_mending
from clip_operator.request import EvaluationRequest

_LOOKED_AT = 4096  # characters
_MOST_FOLDERS = 16
_SHOWN_FOLDERS = 3

_ABSOLUTE = re.compile(r"(?:file://)?/|\\\\", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SEPARATOR = re.compile(r"(?<=[\\/])")  # behind it
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_ESCAPED = re.compile(r"(?:https?|file)://", re.IGNORECASE)

# What is said of paths that a repair might help, by its name.
_SAID = {
    "backslashes": "Image paths with backslashes: {}. image_path_repairs='backslashes' reads them as slashes",
    "percent": "Image paths with escapes such as %20: {}. image_path_repairs='percent' decodes them",
    "blanks": "Image paths with blanks around them: {}. image_path_repairs='blanks' takes these away",
    "nfc": "Image paths with accents as characters of their own: {}. image_path_repairs='nfc' composes them",
    "nfd": "Image paths with accents in composed characters: {}. If the files' names have them apart, as some systems "
    "write them, image_path_repairs='nfd' does so, too",
}


class PathHints:
    """Counts how the image paths are written that lead nowhere, in memory that does not grow with them.

    Whether there is something outside the places that the job may read is not looked at.

    :param request: how they are mended already.
    """

    def __init__(self, request: EvaluationRequest) -> None:
        self._mending = path_mending(request)
        self._counts: Counter[str] = Counter()
        self._folders: dict[str, tuple[int, list[str]]] = {}  # by their first name: how many paths, and where all are

    def add(self, reference: object, reason: Reason) -> None:
        """Count one row without a score."""
        if reason not in (Reason.IMAGE_NOT_FOUND, Reason.IMAGE_FORBIDDEN):
            return
        if (path := path_in(reference)) is None:
            return
        path = self._mending.mended(path)
        self._counts.update(_what_may_be_wrong(path))
        # Where a drive stands first it is a name like any other, and so not found.
        if _DRIVE.match(path) or (reason is Reason.IMAGE_FORBIDDEN and _ABSOLUTE.match(path)):
            self._add_folder(path)

    def _add_folder(self, path: str) -> None:
        start = next((match.end() for known in (_ABSOLUTE, _DRIVE) if (match := known.match(path))), 0)
        folders = _SEPARATOR.split(path[start:])[:-1]
        first = path[:start] + (folders[0] if folders else "")
        if first in self._folders or len(self._folders) < _MOST_FOLDERS:
            count, common = self._folders.get(first, (0, folders))
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(common, folders, strict=False))
            self._folders[first] = count + 1, [folder for folder, _ in alike]

    def lines(self) -> Iterator[str]:
        """Yield a line for each thing that paths have in common, without a full stop."""
        most = sorted(self._folders.items(), key=lambda pair: (-pair[1][0], pair[0]))
        for first, (count, common) in most[:_SHOWN_FOLDERS]:
            folder = first + "".join(common[1:])
            yield (
                f"Image paths that begin with {shown(folder)}, where this job reads nothing: {count:,}. "
                "If their files stand elsewhere now, image_path_rewrite tells where"
            )
        for name, said in _SAID.items():
            if count := self._counts[name]:
                yield said.format(f"{count:,}")


def path_in(reference: object) -> str | None:
    """Return the path in a row's reference, as much of it as is worth a look; None where the image is in the row."""
    path = reference.get("path") if isinstance(reference, Mapping) else reference
    return path[:_LOOKED_AT] if isinstance(path, str) and path[:5].lower() != "data:" else None


def _what_may_be_wrong(path: str) -> Iterator[str]:
    if path != path.strip():
        yield "blanks"
    if "\\" in path:
        yield "backslashes"
    if _ESCAPE.search(path) and not _ESCAPED.match(path.lstrip()):
        yield "percent"
    if not path.isascii():
        yield from (form.lower() for form in ("NFC", "NFD") if unicodedata.normalize(form, path) != path)
