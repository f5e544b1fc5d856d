"""Finds the scores of rows that come in order, by following them from pack to pack."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from clip_operator.reuse.pack import Score, is_anchor
from clip_operator.reuse.store import ScoreStore, StoredPack

# What rows that are found a little out of order need; some 10 MB where all packs are of the usual size.
_MOST_PACKS = 128
_MOST_SCORES = 1 << 17

# A row that is in no pack at hand may be behind an anchor, or some in a row, that this data set has not.
_FOLLOWED_AT_ONCE = 12
_STEPS = 6


_DOORS = 4


def doors_of(keys: Iterable[bytes | None]) -> list[bytes]:
    """Return the names under which the pack of the rows before the first anchor can be found; it has the first name.

    They are the smallest keys of the first rows: some of them stay when rows are put in or taken out. In a large data
    set they are anchors, from which links lead back to the packs of the rows before them.
    """
    return heapq.nsmallest(_DOORS, {key for key in keys if key is not None})


class Trail:
    """The packs that were met last, and the scores in them.

    :param store: where packs are.
    """

    def __init__(self, store: ScoreStore) -> None:
        self._store = store
        self._packs: OrderedDict[bytes, StoredPack] = OrderedDict()
        self._scores: dict[bytes, tuple[Score, bytes]] = {}  # with the name of the pack
        self._held = 0
        self._here: bytes | None = None  # the pack in which a score was found last
        self._followed: set[bytes] = set()

    def begin(self, doors: Sequence[bytes]) -> None:
        """Say from which packs to follow rows that come before any that is found."""
        for door in doors:
            pack = self.pack(door).pack
            if pack.scores or pack.after:
                self._here = door
                return

    def find(self, keys: Sequence[bytes | None]) -> list[Score | None]:
        """Return the scores of the next rows, None where they are not found."""
        return [None if key is None else self._find(key) for key in keys]

    def pack(self, name: bytes) -> StoredPack:
        """Return the pack of this name, from memory if it was met lately."""
        stored = self._packs.get(name)
        if stored is None:
            stored = self._store.read(name)
            self.put(name, stored)
        else:
            self._packs.move_to_end(name)
        return stored

    def put(self, name: bytes, stored: StoredPack) -> None:
        """Remember what stands in the store under this name."""
        self._forget(name)
        self._packs[name] = stored
        self._held += len(stored.pack.scores)
        self._scores.update((key, (score, name)) for key, score in stored.pack.scores.items())
        while len(self._packs) > _MOST_PACKS or (self._held > _MOST_SCORES and len(self._packs) > 1):
            self._forget(next(iter(self._packs)))

    def _find(self, key: bytes) -> Score | None:
        if is_anchor(key) and key not in self._packs and self.pack(key).pack.scores:
            self._here = key
        found = self._scores.get(key)
        if found is None and self._here is not None and self._here not in self._followed:
            self._followed.add(self._here)
            for _ in self._beside(self._here):
                found = self._scores.get(key)
                if found is not None:
                    break
        if found is None:
            return None
        score, self._here = found
        return score

    def _beside(self, name: bytes) -> Iterator[None]:
        """Bring packs that stand beside this one to hand, one at a time: some that follow, then those before it."""
        for forward in (True, False):
            fetched = 0
            level = [name]
            for _ in range(_STEPS):
                packs = [self.pack(each).pack for each in level]
                level = [link for pack in packs for link in (pack.after if forward else pack.before)]
                level = level[: _FOLLOWED_AT_ONCE - fetched]
                for link in level:
                    fetched += link not in self._packs
                    self.pack(link)
                    yield

    def _forget(self, name: bytes) -> None:
        stored = self._packs.pop(name, None)
        if stored is None:
            return
        self._held -= len(stored.pack.scores)
        self._followed.discard(name)
        for key in stored.pack.scores:
            if self._scores[key][1] == name:
                del self._scores[key]
