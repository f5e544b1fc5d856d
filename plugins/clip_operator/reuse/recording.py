"""Puts the scores of rows that come in order into packs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from clip_operator.machine.threads import in_threads
from clip_operator.reuse.pack import MOST_LINKS, MOST_SCORES, Pack, Score, is_anchor, is_storable
from clip_operator.reuse.store import ScoreStore, StoredPack, merged
from clip_operator.scoring import NO_PAIRS

# A pack that is used is written anew when it is so old, and so is never among those that were written longest ago.
_WRITTEN_ANEW_AFTER = timedelta(days=7)

_WRITING_THREADS = 8


class Recording:
    """Gathers scores, and adds to the store what is not in it.

    :param replace: where the store has another score of the same key, put the new one in its place.
    """

    def __init__(self, store: ScoreStore, replace: bool) -> None:
        self._store = store
        self._replace = replace
        self._run = b""
        self._name: bytes | None = None
        self._packs: dict[bytes, Pack] = {}
        self.scores = 0
        """How many were added and are not in the store yet."""

    def begin_segment(self, doors: Sequence[bytes], run: bytes) -> None:
        """Say under which names the rows of the segment that begins are looked for, and which run it is.

        The first rows of all go into the pack of the first name, to which the others lead. Those of a later segment go
        on in the pack at hand, to which its first name leads.
        """
        self._run = run
        if self._name is None:
            self._name = doors[0] if doors else None
        else:
            doors = doors[:1]
        for door in doors:
            if not is_anchor(door) and door != self._name and self._name is not None:
                self._link(self._pack(door).after, self._name)

    def add(self, key: bytes, score: Score | None) -> None:
        """Take in the next row: its key, and its score if it has one and that belongs to the key beyond doubt."""
        if is_anchor(key) and key != self._name:
            if self._name is not None:
                self._link(self._pack(self._name).after, key)
                self._link(self._pack(key).before, self._name)
            self._name = key
        if score is not None and self._name is not None and is_storable(score):
            scores = self._pack(self._name).scores
            if len(scores) < MOST_SCORES:
                scores[key] = score
                self.scores += 1

    def flush(self) -> None:
        """Write the packs that have become others."""
        changed = list(self._changed())
        in_threads(_WRITING_THREADS, lambda pack: self._store.write(*pack), changed)
        self._packs.clear()
        self.scores = 0

    def _link(self, links: dict[bytes, bytes], name: bytes) -> None:
        if len(links) < MOST_LINKS:
            links[name] = self._run

    def _pack(self, name: bytes) -> Pack:
        return self._packs.setdefault(name, Pack())

    def _changed(self) -> Iterator[tuple[bytes, StoredPack]]:
        for name, new in self._packs.items():
            stored = self._store.read(name)
            old = stored.pack
            if not self._replace:
                # Scores of another device differ in the last bit; to write them would not make them better, but where
                # the row had no pair.
                kept = {key: score for key, score in old.scores.items() if score.mismatched != NO_PAIRS}
                new.scores = {key: kept.get(key, score) for key, score in new.scores.items()}
            both = merged(new, old)
            is_old = stored.info is not None and _is_old(stored.info.modified)
            if is_old or (both.scores, both.after, both.before) != (old.scores, old.after, old.before):
                yield name, StoredPack(both, stored.info)


def _is_old(written: datetime | None) -> bool:
    return written is not None and datetime.now(UTC) - written > _WRITTEN_ANEW_AFTER
