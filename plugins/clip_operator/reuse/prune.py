"""Keeps a score store from growing for ever."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clip_operator.errors import JobError, RequestError
from clip_operator.machine.threads import in_threads
from clip_operator.reuse.store import is_pack, is_store, packs_prefix
from clip_operator.storage import ObjectInfo, Storage, display

_DELETING_THREADS = 16
_NO_TIME = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Pruned:
    """What was removed from a score store, and what is left of it."""

    removed_packs: int
    removed_bytes: int
    kept_packs: int
    kept_bytes: int


def prune(storage: Storage, uri: str, older_than_days: float | None = None, max_bytes: int | None = None) -> Pruned:
    """Remove the packs of a score store that were written longest ago, and nothing else.

    A pack that is in use is written anew every week, so one that is older than a few weeks has not been of use since.
    It does no harm to prune a store while jobs use it: they score what they do not find.

    :param uri: the store's.
    :param older_than_days: remove those that were written earlier; at least 8, so that none in daily use is hit.
    :param max_bytes: and then, from the oldest on, as many as it takes for the rest to have at most so many bytes.
    :raises RequestError: neither is given, or one of them makes no sense.
    :raises JobError: there is no such store.
    :raises StorageError: the store cannot be listed, or a pack not deleted.
    """
    _check(older_than_days, max_bytes)
    oldest_kept = _NO_TIME if older_than_days is None else datetime.now(UTC) - timedelta(days=older_than_days)
    old: list[ObjectInfo] = []
    by_age: list[tuple[datetime, str, ObjectInfo]] = []
    kept_packs = kept_bytes = 0
    for info in storage.list(packs_prefix(uri)):
        if not is_pack(info.uri, uri):
            continue
        written = info.modified or _NO_TIME
        if written < oldest_kept:
            old.append(info)
            continue
        kept_packs, kept_bytes = kept_packs + 1, kept_bytes + info.size
        if max_bytes is not None:
            by_age.append((written, info.uri, info))
    if not old and not kept_packs and not is_store(storage, uri):
        raise JobError(f"there is no score store at {display(uri)}; name the one that reuse names")
    heapq.heapify(by_age)
    while max_bytes is not None and kept_bytes > max_bytes:
        _, _, info = heapq.heappop(by_age)
        old.append(info)
        kept_packs, kept_bytes = kept_packs - 1, kept_bytes - info.size
    in_threads(_DELETING_THREADS, lambda info: storage.delete(info.uri), old)
    return Pruned(len(old), sum(info.size for info in old), kept_packs, kept_bytes)


def _check(older_than_days: float | None, max_bytes: int | None) -> None:
    if older_than_days is None and max_bytes is None:
        raise RequestError(
            "say what to remove: packs older than a number of days (older_than_days), all above a number of bytes "
            "(max_bytes), or both"
        )
    if older_than_days is not None and older_than_days < 8:
        raise RequestError(
            f"older_than_days is {older_than_days:g}: packs in use are written anew every 7 days, so give at least 8"
        )
    if max_bytes is not None and max_bytes < 0:
        raise RequestError(f"max_bytes is {max_bytes:,}, but must not be negative")
