"""Where one image is, as a value to compare, to fetch from, and to show in a log."""

from __future__ import annotations

from dataclasses import dataclass, field

from clip_operator.images.base64_text import begins_as_image
from clip_operator.storage import display, scheme_of

_SHOWN_CHARACTERS = 120
_SHOWN_OF_BASE64 = 16
_LOOKED_AT = 4096  # characters of a reference, which may have megabytes


@dataclass(frozen=True, repr=False)
class ImageLocation:
    """One place to get an image's bytes from. Its text form is safe to log, its key is not: URLs may be signed.

    :param key: equal for equal images: the whole URI or absolute path of a reference, ``sha256:…`` of inline bytes.
    :param data: the bytes themselves if they came with the row.
    """

    key: str
    data: bytes | None = field(default=None, compare=False)

    @property
    def inline(self) -> bool:
        """Whether the bytes came with the row, so that to fetch them again gives the same ones."""
        return self.data is not None

    def __str__(self) -> str:
        return shown(self.key)

    def __repr__(self) -> str:
        return f"ImageLocation({shown(self.key)!r})"


def shown(reference: str) -> str:
    """Return a reference as it may stand in a log: one short line, no password, no query, no embedded data."""
    if reference[:5].lower() == "data:":
        text = reference[:40].partition(",")[0] + ",…"
    elif begins_as_image(reference):
        text = reference[:_SHOWN_OF_BASE64] + "…"
    elif scheme_of(reference) == "file":
        # Not a URI as this package reads them, but what was meant as one (" https://…?signature=…") has secrets, too.
        head, mark, _ = reference.partition("://")
        text = f"{head}://…" if mark and head.lower() != "file" else reference
    else:
        text = display(reference[:_LOOKED_AT])
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 1] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
