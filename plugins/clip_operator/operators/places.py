"""Which places lie below those that somebody allows, however they are spelled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from clip_operator.errors import ClipOperatorError, RequestError
from clip_operator.inputs import find_input
from clip_operator.storage import Storage, StorageError, canonical, dataset_name, scheme_of, what_is_wrong_with
from clip_operator.storage.local import path_of

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HUB = "hub"  # what comes before a name at the hub: no absolute path begins so, and no URI
_NO_STORES = frozenset({"file", "builtin"})


@dataclass(frozen=True)
class Places:
    """Folders, prefixes and objects in stores, names at the hub; each with all that is below it, and nothing beside it.

    :param roots: in the spelling that :func:`place_of` and :func:`model_place` give.
    """

    roots: tuple[str, ...]

    @classmethod
    def parse(cls, entries: Sequence[str], *, models: bool = False) -> Self:
        """Take what somebody has written: ``s3://bucket/folder``, ``/absolute/path``, ``hf:owner/name``, or a whole
        kind of store, ``s3://``.

        :param models: names without a scheme are hub ids, or owners of such.
        :raises RequestError: an entry that can never hold anything, or not what it seems to.
        """
        return cls(tuple(_root(entry, models) for entry in entries))

    def hold(self, place: str | None) -> bool:
        """Tell whether a place is one of these or below one. None, which is nowhere, is not."""
        return place is not None and any(_is_below(place, root) for root in self.roots)

    def reach_into(self, bucket: str) -> bool:
        """Tell whether something in a bucket, ``s3://name``, is among these."""
        return self.hold(bucket) or any(_is_below(root, bucket) for root in self.roots)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the URIs in object stores start with that are among these."""
        return tuple(_with_end(root) for root in self.roots if "://" in root and scheme_of(root) not in _NO_STORES)


def place_of(uri: str) -> str | None:
    """Return the one spelling of where a URI or a path leads: of a local one with all links followed.

    None for what might lead elsewhere than it seems to: with ``..``, encoded or not, or with ``::``.
    """
    if "::" in uri:
        return None
    if (dataset := dataset_name(uri)) is not None:
        name, *parts = dataset.split(":")
        return _at_hub("/".join((name, *parts))) if _is_hub_id(name) else _local(name)
    if scheme_of(uri) == "file":
        return _local(uri)
    return None if what_is_wrong_with(uri) or _may_climb(uri) else canonical(uri)


def model_place(name: str) -> str | None:
    """Return the same of a model's name, which without a scheme is a folder or, where there is none, a hub id."""
    return _at_hub(name) if scheme_of(name) == "file" and _is_hub_id(name) else place_of(name)


def program_place(path: str) -> str | None:
    """Return the same of a program. The last link stays: what a virtual environment holds is one to another's file."""
    program = Path(path)
    if not program.is_absolute() or program.name in ("", ".."):
        return None
    folder = _local(str(program.parent))
    return None if folder is None else str(Path(folder) / program.name)


def files_of(uri: str) -> Iterator[str]:
    """Yield the files that a local input stands for; of one that is not local, or cannot be read, none."""
    if scheme_of(uri) != "file":
        return
    storage, dataset = Storage(), dataset_name(uri)
    with suppress(ClipOperatorError):  # whoever reads it says what is wrong
        if dataset is None:
            yield from (info.uri for info in find_input(storage, uri).files)
        elif (folder := Path(dataset.partition(":")[0])).is_dir():
            yield from (info.uri for info in storage.list(f"{folder}/"))


def _root(entry: str, models: bool) -> str:
    if entry == "hf:":
        return _HUB
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://", entry):
        return canonical(entry)
    is_plain = scheme_of(entry) == "file" and dataset_name(entry) is None and not entry.lower().startswith("file://")
    if is_plain and not Path(entry).is_absolute():
        place = _at_hub(entry) if models and _HUB_ID.fullmatch(entry) else None
    else:
        place = place_of(entry)
    if place is None or "*" in place:
        raise RequestError(
            f"{entry!r} is not a place that can be allowed: write a URI or an absolute path, without '..' and wildcards"
        )
    return place.rstrip("/") or "/"


def _is_below(place: str, root: str) -> bool:
    return place == root or place.startswith(_with_end(root))


def _with_end(root: str) -> str:
    return root if root.endswith("/") else f"{root}/"


def _at_hub(name: str) -> str:
    return f"{_HUB}/{name}"


def _is_hub_id(name: str) -> bool:
    """Tell whether it is looked for at the hub: a folder of that name would be taken before."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).is_dir()


def _local(path: str) -> str | None:
    try:
        return str(path_of(path).resolve())
    except (StorageError, ValueError, OSError, RuntimeError):  # no such name, or links that go round in a circle
        return None


def _may_climb(uri: str) -> bool:
    """Tell whether a store, a proxy before it or a driver might read something else than the URI's text names."""
    decoded = unquote(uri)
    while decoded != uri:
        if _has_dots(uri):
            return True
        uri, decoded = decoded, unquote(decoded)
    return _has_dots(uri)


def _has_dots(uri: str) -> bool:
    segments = (segment.partition(";")[0] for segment in re.split(r"[/\\]", uri))
    return _CONTROL.search(uri) is not None or not {".", ".."}.isdisjoint(segments)
