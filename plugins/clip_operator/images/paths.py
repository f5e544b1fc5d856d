"""Relative paths as text: how ``.``, ``..`` and empty segments are resolved, without a look at any disk."""

from __future__ import annotations

from clip_operator.errors import Reason, RowError
from clip_operator.images.location import shown


def resolve(path: str, reference: str) -> str:
    """Return ``path`` without ``.``, ``..`` and empty segments and without a slash at its start.

    Nothing is percent-decoded: ``%2e%2e`` is a name like any other. A symbolic link followed by ``..`` leads back to
    where the link stands, not to beside its target: the same for a local folder and for object keys, which know no
    links.

    :param path: a path that starts at the folder it must not leave.
    :param reference: what the row says, for the error.
    :raises RowError: ``IMAGE_FORBIDDEN`` if the path climbs above its start, ``IMAGE_NOT_FOUND`` if it names a folder.
    """
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if not kept:
                raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(reference)} climbs out of the folder it starts in")
            kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    if not kept or path.endswith("/"):
        raise RowError(Reason.IMAGE_NOT_FOUND, f"{shown(reference)} names a folder, not a file")
    return "/".join(kept)
