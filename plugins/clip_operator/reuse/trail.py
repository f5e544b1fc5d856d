"""Finds the scores of rows that come in order, by following them from pack to pack."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from clip_operator.reuse.pack import Pack, Score, is_anchor
from clip_operator.reuse.store import ScoreStore

# What rows of a long segment that are found a little out of order need; some 10 MB where packs are of the usual size.
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
    """The packs that were met last, and the scores in them, but for what this run has put there itself.

    Each segment is looked up by itself, so that a run comes to the same in one go, in shards, and behind a resume
    point.

    :param store: where packs are.
    """

    def __init__(self, store: ScoreStore) -> None:
        self._store = store
        self._run = b""
        self._packs: OrderedDict[bytes, Pack] = OrderedDict()
        self._scores: dict[bytes, tuple[Score, bytes]] = {}  # with the name of the pack
        self._held = 0
        self._here: bytes | None = None  # the pack in which a score was found last
        self._followed: set[bytes] = set()

    def begin_segment(self, doors: Sequence[bytes], run: bytes) -> None:
        """Say from which packs to follow rows that come before any that is found, and which run it is."""
        self._run = run
        self._here = None
        while self._packs:
            self._forget(next(iter(self._packs)))
        for door in doors:
            pack = self._pack(door)
            if pack.scores or pack.after:
                self._here = door
                return

    def find(self, keys: Sequence[bytes | None]) -> list[Score | None]:
        """Return the scores of the next rows, None where they are not found."""
        return [None if key is None else self._find(key) for key in keys]

    def _pack(self, name: bytes) -> Pack:
        """Return the pack of this name, from memory if it was met lately."""
        pack = self._packs.get(name)
        if pack is not None:
            self._packs.move_to_end(name)
            return pack
        pack = self._packs[name] = self._store.read(name).pack.without(self._run)
        self._held += len(pack.scores)
        self._scores.update((key, (score, name)) for key, score in pack.scores.items())
        while len(self._packs) > _MOST_PACKS or (self._held > _MOST_SCORES and len(self._packs) > 1):
            self._forget(next(iter(self._packs)))
        return pack

    def _find(self, key: bytes) -> Score | None:
        if is_anchor(key) and key not in self._packs and self._pack(key).scores:
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
                packs = [self._pack(each) for each in level]
                level = [link for pack in packs for link in (pack.after if forward else pack.before)]
                level = level[: _FOLLOWED_AT_ONCE - fetched]
                for link in level:
                    fetched += link not in self._packs
                    self._pack(link)
                    yield

    def _forget(self, name: bytes) -> None:
        pack = self._packs.pop(name)
        self._held -= len(pack.scores)
        self._followed.discard(name)
        for key in pack.scores:
            if self._scores.get(key, (None, b""))[1] == name:  # another pack may have had it, too
                del self._scores[key]
