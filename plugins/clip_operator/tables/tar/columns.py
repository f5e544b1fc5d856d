"""Which members of a tar are the image and the caption of a row, by their endings or by fields of the JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from clip_operator.errors import JobError
from clip_operator.image_formats import IMAGE_ENDINGS
from clip_operator.tables.tar.members import TarMember, shown
from clip_operator.tables.tar.sample import COLUMNS, IMAGE, JSON, TEXT

_FIELD = f"{JSON}."
_SHOWN_MEMBERS = 6
_MOST_WAITING = 65_536


@dataclass(frozen=True)
class NamedColumns:
    """The names of the image and of the caption.

    Beside the columns that every tar has, a name is an ending (``img``) or a field of the .json file (``json.prompt``).
    """

    image: str = IMAGE
    text: str = TEXT

    @property
    def own(self) -> tuple[str, ...]:
        """The names that are no columns of every tar."""
        return tuple(name for name in dict.fromkeys((self.image, self.text)) if name not in COLUMNS)

    def is_image(self, ending: str) -> bool:
        """Tell whether a member with this ending is, or tells, a row's image."""
        return _is_told(self.image, ending) if self.image != IMAGE else ending in IMAGE_ENDINGS

    def is_text(self, ending: str) -> bool:
        """Tell whether a member with this ending holds a row's caption."""
        return _is_told(self.text, ending) if self.text != TEXT else ending in ("txt", JSON)


def field_of(name: str) -> str | None:
    """Return which field of the .json file a column is; None where it is a member."""
    return name.removeprefix(_FIELD) if name.startswith(_FIELD) else None


def _is_told(name: str, ending: str) -> bool:
    if name in COLUMNS:  # a row has them whatever its members are
        return True
    return ending == (JSON if field_of(name) is not None else name.lower())


class RowsSeen:
    """Looks at the members of all rows for what tells that they were named or ordered otherwise.

    :param names: what the image and the caption are called.
    """

    def __init__(self, names: NamedColumns) -> None:
        self._names = names
        self._first: tuple[str, list[str]] | None = None
        self._images = self._texts = False
        self._tar: object = None
        self._waiting: dict[str, str] = {}

    def see(self, tar: object, key: str, files: Mapping[str, TarMember]) -> None:
        """Take in a row.

        :param tar: the tar that it is in.
        :raises JobError: the row has what an earlier one with the same key lacks; no more than ``_MOST_WAITING`` rows
            of a tar that lack something are remembered.
        """
        images = any(map(self._names.is_image, files))
        texts = any(map(self._names.is_text, files))
        self._first = self._first or (key, [member.name for member in islice(files.values(), _SHOWN_MEMBERS + 1)])
        self._images |= images
        self._texts |= texts
        if tar != self._tar:
            self._tar, self._waiting = tar, {}
        if images == texts:
            return
        name = next(iter(files.values())).name
        earlier = self._waiting.get(f"{not images:d}{key}")
        if earlier is not None:
            raise JobError(
                f"The members of the key {shown(key)!r} do not stand behind one another in the tar: {shown(earlier)!r} "
                f"comes first, and {shown(name)!r} behind other keys. Write the tar sorted by name (tar --sort=name)"
            )
        if len(self._waiting) < _MOST_WAITING:
            self._waiting[f"{images:d}{key}"] = name

    def check(self) -> None:
        """Raise :class:`JobError` if no row has an image, or none a caption; names a key and its members."""
        if self._first is None:
            return
        for found, what, parameter, more in (
            (self._images, "an image", "input_image_key", "img"),
            (self._texts, "a caption", "input_text_key", "cap, or a field of its .json as in json.prompt"),
        ):
            if not found:
                raise JobError(
                    f"No row of the tar has {what}: {self._members()}. Name its ending by {parameter}, as in {more}, "
                    "or rename the members: a key ends at the first dot of a name, and the ending is all that follows"
                )

    def _members(self) -> str:
        key, names = self._first or ("", [])
        more = ", …" if len(names) > _SHOWN_MEMBERS else ""
        listed = ", ".join(repr(shown(name)) for name in names[:_SHOWN_MEMBERS])
        return f"the first key is {shown(key)!r}, and its members are {listed}{more}"
