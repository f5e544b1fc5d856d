"""Paths of another machine, or of another way of writing: what is done to them, where it is asked for, before they are
followed. The row stays as it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from clip_operator.images.base64_text import begins_as_image
from clip_operator.storage import scheme_of

_WEB = ("http", "https")


@dataclass(frozen=True)
class PathMending:
    """What is done to the text that names an image. The policy is asked afterwards, of what has come of it.

    :param repairs: ``blanks``: those around a path go; ``percent``: ``%20`` and its like are decoded, once;
        ``backslashes`` become slashes; ``nfc`` or ``nfd``: letters with accents are composed, or decomposed.
    :param rewrite: what paths may begin with, and what takes its place: the first that fits.
    """

    repairs: frozenset[str] = frozenset()
    rewrite: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, repairs: Iterable[str], rewrite: Mapping[str, str]) -> Self:
        """Return the mending in which the longest prefix wins. Prefixes are repaired as paths are, but for blanks."""
        plain = cls(frozenset(repairs))
        mended = {plain._repaired(prefix, ends=False): target for prefix, target in rewrite.items()}
        return cls(plain.repairs, tuple(sorted(mended.items(), key=lambda pair: -len(pair[0]))))

    def mended(self, reference: str) -> str:
        """Return the text that names the image; that of an image itself, ``data:``, stays as it is, and base64 becomes
        no other place."""
        if not (self.repairs or self.rewrite) or reference[:5].lower() == "data:":
            return reference
        path = self._repaired(reference)
        for prefix, target in self.rewrite:
            if path.startswith(prefix) and not begins_as_image(path):  # a JPEG in base64 begins with a slash
                return target + path[len(prefix) :]
        return path

    def _repaired(self, path: str, *, ends: bool = True) -> str:
        if "blanks" in self.repairs and ends:
            path = path.strip()
        if scheme_of(path) not in _WEB:  # whose escapes are the web's, as are those of file:// URIs
            if "percent" in self.repairs and path[:7].lower() != "file://":
                path = _decoded(path)
            if "backslashes" in self.repairs:
                path = path.replace("\\", "/")
        for form in ("NFC", "NFD"):
            if form.lower() in self.repairs:
                path = unicodedata.normalize(form, path)
        return path


AS_WRITTEN = PathMending()
"""Nothing is done."""


def _decoded(path: str) -> str:
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        return path
