"""Mismatched pairs: images beside the texts of other rows, so that it is known what pairs score that do not belong
together.

Rows lend each other their texts within a *block*: a segment, or 4,096 rows of one. Nothing of one segment takes part in
the scoring of another, and the order in which rows are drawn depends on how many they are alone, so a step has the same
pairs in one go, in shards, and where a try goes on behind a resume point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_operator.proof.manifest import BINS, GROUPS
from clip_operator.scoring.alignment import to_unit_interval
from clip_operator.scoring.clusters import group_of, image_hashes
from clip_operator.scoring.pairs import Embedded
from clip_operator.scoring.result import RowResult

PARTNERS = 15
"""With so many other rows a row is paired, at most. Scores of 3,000 pairs among 200 rows tell the AUC of all 39,800 to
about 0.001."""

BYTES_A_ROW = 3 * PARTNERS
"""Of a row's pairs as :func:`packed` writes them."""

NO_PAIRS = b"\xff" * BYTES_A_ROW
"""Of a row that has none."""

_TEAM = PARTNERS + 1
_BLOCK_ROWS = 4096  # of which embeddings are kept: 16 MB of 512 dimensions each

# Partners that show the same picture, or say the same, are no mismatched pair: copies under other names, pictures saved
# again. Texts differ in less only where a model reads them alike.
_SAME_IMAGE = 0.98
_SAME_TEXT = 0.99999

_NO_PAIR = 0xFFFFFF
_BIN_BITS = 14


class PairedRows(NamedTuple):
    """What a calibration is made of: rows with their mismatched pairs.

    :param images: the hash of each row's image: int64 [rows].
    :param scores: each row's own score, NaN where it has none: float64 [rows].
    :param codes: uint32 [rows, 15]: the bin of the pair's score in the low 14 bits, above it the group of the image
        whose text was lent; or 0xFFFFFF where there is no pair.
    """

    images: NDArray[np.int64]
    scores: NDArray[np.float64]
    codes: NDArray[np.uint32]

    def between(self, start: int, stop: int) -> PairedRows:
        """Return some of the rows."""
        return PairedRows(self.images[start:stop], self.scores[start:stop], self.codes[start:stop])

    def mismatched(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return of each pair its bin, its image's group and its text's: int64 [pairs] each."""
        row, place = np.nonzero(self.codes != _NO_PAIR)
        codes = self.codes[row, place].astype(np.int64)
        return codes & (1 << _BIN_BITS) - 1, group_of(self.images[row]), codes >> _BIN_BITS


def packed(codes: NDArray[np.uint32]) -> list[bytes]:
    """Return the codes of each row as 45 bytes."""
    data = codes.astype("<u4").view(np.uint8).reshape(-1, PARTNERS, 4)[..., :3].tobytes()
    return [data[at : at + BYTES_A_ROW] for at in range(0, len(data), BYTES_A_ROW)]


def unpacked(rows: Sequence[bytes | None]) -> NDArray[np.uint32]:
    """Return the codes of rows as :func:`packed` has written them, None standing for no pairs: uint32 [rows, 15]."""
    data = np.frombuffer(b"".join(row or NO_PAIRS for row in rows), np.uint8).reshape(len(rows), PARTNERS, 3)
    return np.pad(data, ((0, 0), (0, 0), (0, 1))).view("<u4")[..., 0]


def are_packed(data: bytes) -> bool:
    """Tell whether these bytes can be what :func:`packed` makes of rows, one after another."""
    if len(data) % BYTES_A_ROW:
        return False
    codes = unpacked([data[at : at + BYTES_A_ROW] for at in range(0, len(data), BYTES_A_ROW)])
    codes = codes[codes != _NO_PAIR]
    return bool(((codes & (1 << _BIN_BITS) - 1 < BINS) & (codes >> _BIN_BITS < GROUPS)).all())


class PairMaker:
    """Takes in rows in order, and pairs them block by block."""

    def __init__(self) -> None:
        self._decided: list[PairedRows] = []
        self._begin_block()

    def add(self, references: Sequence[object], results: Sequence[RowResult], embedded: Embedded | None) -> None:
        """Take in the next rows.

        :param references: their image references, one a row.
        :param results: what became of them. Those that bring mismatched pairs along keep these.
        :param embedded: those that have embeddings.
        """
        scores = np.array([math.nan if result.score is None else result.score for result in results])
        codes = unpacked([result.mismatched for result in results])
        rows = PairedRows(image_hashes(references), scores, codes)
        start = 0
        while start < len(results):
            stop = min(len(results), start + _BLOCK_ROWS - self._rows)
            self._rows_of_block.append(rows.between(start, stop))
            if embedded is not None:
                first, last = np.searchsorted(embedded.rows, (start, stop))
                self._embedded_rows.append(embedded.rows[first:last] - start + self._rows)
                self._images.append(embedded.images[first:last])
                self._texts.append(embedded.texts[first:last])
            self._rows += stop - start
            start = stop
            if self._rows == _BLOCK_ROWS:
                self.end_block()

    def end_block(self) -> None:
        """Pair the rows of the block: those that come are of another."""
        if not self._rows:
            return
        rows = _joined(self._rows_of_block)
        if self._images:
            embedded, images = np.concatenate(self._embedded_rows), np.concatenate(self._images)
            groups = group_of(rows.images[embedded])
            rows.codes[embedded] = _codes(images, np.concatenate(self._texts), groups)
        self._decided.append(rows)
        self._begin_block()

    def take(self) -> PairedRows:
        """Return the rows that are next in line and whose pairs are decided."""
        decided, self._decided = self._decided, []
        return _joined(decided)

    def _begin_block(self) -> None:
        self._rows = 0
        self._rows_of_block: list[PairedRows] = []
        self._embedded_rows: list[NDArray[np.intp]] = []
        self._images: list[NDArray[np.float32]] = []
        self._texts: list[NDArray[np.float32]] = []


def _joined(parts: Sequence[PairedRows]) -> PairedRows:
    if not parts:
        return PairedRows(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, PARTNERS), np.uint32))
    return PairedRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _codes(images: NDArray[np.float32], texts: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the codes of rows that are paired with each other: uint32 [rows, 15].

    They are dealt out into teams of 16 at most, and within a team each image meets each other row's text. So every
    image and every text is in as many pairs as any other, give or take one.
    """
    teams = _teams(len(images))
    there = teams >= 0
    of_images, of_texts = images[teams], texts[teams]  # a place that is not taken has the last row's; it is left out
    scores = to_unit_interval(of_images @ of_texts.transpose(0, 2, 1))
    apart = (_cosines(of_images) < _SAME_IMAGE) & (_cosines(of_texts) < _SAME_TEXT)
    bins = np.minimum((scores * np.float32(BINS)).astype(np.uint32), np.uint32(BINS - 1))
    lent = (groups[teams] << _BIN_BITS).astype(np.uint32)
    pairs = np.where(apart & there[:, :, None] & there[:, None, :], bins | lent[:, None, :], np.uint32(_NO_PAIR))
    codes = np.full((len(images), PARTNERS), _NO_PAIR, np.uint32)
    size = teams.shape[1]
    others = ~np.eye(size, dtype=bool)
    codes[teams[there], : size - 1] = pairs[:, others].reshape(len(teams), size, size - 1)[there]
    return codes


def _cosines(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return those of each team's embeddings, which may be means and shorter than 1: float32 [teams, team, team]."""
    units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    cosines: NDArray[np.float32] = units @ units.transpose(0, 2, 1)
    return cosines


def _teams(rows: int) -> NDArray[np.intp]:
    """Deal rows out, in an order as good as random and always the same: intp [teams, at most 16], -1 for no row."""
    order = np.argsort(_shuffled(np.arange(rows, dtype=np.uint64)), kind="stable")
    teams = -(-rows // _TEAM)
    size = -(-rows // teams)
    places = np.full(size * teams, -1, np.intp)
    places[:rows] = order
    return places.reshape(size, teams).T


def _shuffled(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 random bits for each number: SplitMix64, of Steele, Lea and Flood, OOPSLA 2014.

    Written out, because what a library's generator draws may change with its version.
    """
    bits = numbers + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
