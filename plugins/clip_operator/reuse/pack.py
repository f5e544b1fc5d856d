"""Packs: some 256 scores of rows that stood together, in one object of the store.

A pack begins at an *anchor*, a row whose key starts with a zero byte, and is named by it. So where packs begin depends
on what the rows hold and not on where they stand: rows that are put in or taken out shift no other pack's border.
(Rsync and backup programs cut files like this: *content-defined chunking*.)
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from clip_operator.reuse.keys import KEY_BYTES
from clip_operator.scoring import BYTES_A_ROW, NO_PAIRS, are_packed

MOST_SCORES = 4096
"""In one pack: some hundred rows are usual; more come together where many data sets share an anchor."""

MOST_LINKS = 4
"""To packs that followed a pack, and to packs that came before it."""

RUN_BYTES = 8

_MAGIC = b"CLIPpak1"
_HEAD = struct.Struct(f"<{len(_MAGIC)}sIII")
_SCORE = struct.Struct(f"<{KEY_BYTES}sdB{BYTES_A_ROW}s{RUN_BYTES}s")
_LINK = struct.Struct(f"<{KEY_BYTES}s{RUN_BYTES}s")
_CHECKSUM_BYTES = 16

# What is marked of a score, in one byte.
_TRUNCATED, _UNTURNED = 1, 2

MOST_BYTES = _HEAD.size + _SCORE.size * MOST_SCORES + _LINK.size * 2 * MOST_LINKS + _CHECKSUM_BYTES


class CorruptPack(ValueError):
    """The bytes are no pack, or not a whole one."""


class Score(NamedTuple):
    """What is kept of one row.

    :param score: in [0, 1].
    :param truncated: its text was longer than the model reads.
    :param mismatched: the row's mismatched pairs, packed.
    :param run: the run that scored it.
    :param unturned: its image was to be turned, as its EXIF says, and was not.
    """

    score: float
    truncated: bool
    mismatched: bytes = NO_PAIRS
    run: bytes = bytes(RUN_BYTES)
    unturned: bool = False


@dataclass
class Pack:
    """Scores by key, in the order of their rows, and the names of the packs beside it, each with the run that said so.

    :param after: packs that followed it, in this or another data set.
    :param before: packs that it followed.
    """

    scores: dict[bytes, Score] = field(default_factory=dict)
    after: dict[bytes, bytes] = field(default_factory=dict)
    before: dict[bytes, bytes] = field(default_factory=dict)

    def without(self, run: bytes) -> Pack:
        """Return what is in it that a run has not put there."""
        return Pack(
            {key: score for key, score in self.scores.items() if score.run != run},
            {name: by for name, by in self.after.items() if by != run},
            {name: by for name, by in self.before.items() if by != run},
        )


def is_anchor(key: bytes) -> bool:
    """Tell whether a pack begins at the row of this key: one in 256 does.

    They are the smallest keys, so that the smallest of some rows is an anchor if there is one among them.
    """
    return key[0] == 0


def is_storable(score: Score) -> bool:
    """Tell whether its numbers are such that a score can be."""
    return 0.0 <= score.score <= 1.0  # also false for NaN


def encode(pack: Pack) -> bytes:
    """Return the pack as bytes, its first :data:`MOST_SCORES` scores and :data:`MOST_LINKS` links of each kind."""
    scores = list(pack.scores.items())[:MOST_SCORES]
    after, before = list(pack.after.items())[:MOST_LINKS], list(pack.before.items())[:MOST_LINKS]
    parts = [_HEAD.pack(_MAGIC, len(scores), len(after), len(before))]
    for key, score in scores:
        marks = _TRUNCATED * score.truncated | _UNTURNED * score.unturned
        parts.append(_SCORE.pack(key, score.score, marks, score.mismatched, score.run))
    data = b"".join([*parts, *(_LINK.pack(*link) for link in after + before)])
    return data + _checksum(data)


def decode(data: bytes) -> Pack:
    """Return the pack that :func:`encode` made bytes of.

    :raises CorruptPack: it did not make these.
    """
    if len(data) < _HEAD.size + _CHECKSUM_BYTES or not data.startswith(_MAGIC):
        raise CorruptPack("this is no pack of scores")
    data, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if checksum != _checksum(data):
        raise CorruptPack("the checksum is wrong")
    _, scores, after, before = _HEAD.unpack_from(data)
    links_at = _HEAD.size + scores * _SCORE.size
    if len(data) != links_at + (after + before) * _LINK.size:
        raise CorruptPack("the length is wrong")
    links = list(_LINK.iter_unpack(data[links_at:]))
    pack = Pack(after=dict(links[:after]), before=dict(links[after:]))
    for key, score, marks, mismatched, run in _SCORE.iter_unpack(data[_HEAD.size : links_at]):
        found = Score(score, bool(marks & _TRUNCATED), mismatched, run, bool(marks & _UNTURNED))
        if not is_storable(found) or marks > _TRUNCATED | _UNTURNED:
            raise CorruptPack("it holds what is no score")
        pack.scores[key] = found
    if not are_packed(b"".join(score.mismatched for score in pack.scores.values())):
        raise CorruptPack("it holds what are no mismatched pairs")
    return pack


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).digest()
