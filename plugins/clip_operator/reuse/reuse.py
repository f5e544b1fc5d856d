"""Puts the scores of the store to the rows of a job, and the job's new scores into the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Generic, TypeVar

from clip_operator.errors import RowError
from clip_operator.images import ImageLoader, ImageLocation, ImageVersions
from clip_operator.proof.manifest import ModelProvenance
from clip_operator.request import EvaluationRequest
from clip_operator.reuse.keys import ScoreKeys
from clip_operator.reuse.pack import Score
from clip_operator.reuse.recording import Recording
from clip_operator.reuse.store import ScoreStore
from clip_operator.reuse.trail import Trail, doors_of
from clip_operator.reuse.witness import WitnessedImages
from clip_operator.scoring import NO_PAIRS, ImageSource, PairedRows, RowResult, Rows, image_hashes, packed
from clip_operator.storage import Storage

ContentT = TypeVar("ContentT")

# Scores that wait for the end of a segment; some 5 MB. Of longer segments they are written earlier.
_MOST_WAITING = 1 << 14

_LEAST_REMEMBERED_IMAGES = 1 << 15
_BYTES_OF_AN_EMBEDDING = 512  # at least, in the scorer's memory


# The first rows, of which the smallest key names a pack: with so many, there is an anchor among them 98 times in 100.
_ROWS_OF_ENTRY = 1024
_BYTES_OF_ENTRY = 32 << 20

_Proviso = tuple[ImageLocation, str]
"""Where a row's image is, and the version that must be what is read there for the row's score to belong to its key."""


@dataclass(frozen=True, slots=True)
class _Keyed(Generic[ContentT]):
    """Rows and, one a row, their keys and provisos; an image that came with its row needs no proviso."""

    rows: Rows[ContentT]
    keys: list[bytes | None]
    provisos: list[_Proviso | None]


class ScoreReuse:
    """Lets a job take scores from the store and add its own.

    A row that has a result already is left alone, and is not recorded: an earlier try, or an earlier output, does not
    say which version of the image it has seen.

    Where the request says overwrite, no scores are taken, and the job's own take the place of those in the store. Where
    it asks for sentences, rows whose text was cut are scored again: the store does not know their sentences.

    :param store: the score store.
    :param model: what scores.
    :param storage: where images are.
    :param images: the job's loader.
    :param workers: the job's workers, which give the images.
    """

    def __init__(
        self,
        store: ScoreStore,
        model: ModelProvenance,
        request: EvaluationRequest,
        storage: Storage,
        images: ImageLoader,
        workers: ImageSource,
    ) -> None:
        self._keys = ScoreKeys(model, request)
        self._reads = not request.overwrite
        self._with_sentences = request.sentence_key is not None
        self._versions = ImageVersions(storage, images)
        self._trail = Trail(store)
        self._recording = Recording(store, replace=request.overwrite)
        self._underway: deque[list[tuple[bytes, _Proviso | None] | None]] = deque()
        self._unpaired: deque[tuple[bytes, Score | None] | None] = deque()
        self._segments: deque[tuple[int, list[bytes]]] = deque()  # the first row and the doors of those ahead
        self._rows_read = self._rows_recorded = 0
        remembered = max(_LEAST_REMEMBERED_IMAGES, request.embedding_cache_bytes // _BYTES_OF_AN_EMBEDDING)
        self.images = WitnessedImages(workers, remembered)
        """Where the scorer must take its images from."""
        self.reused = 0
        """How many rows' scores came from the store so far."""

    def rows(self, chunks: Iterable[Rows[ContentT]], run: str) -> Iterator[Rows[ContentT]]:
        """Yield the rows with what the store knows of those that nothing is known of.

        :param run: what tells this run from others, 16 hexadecimal digits. What it has itself put into the store, in an
            earlier try or in another shard, is not taken: which rows are encoded together must not hang on that.
        :raises StorageError: the versions of images cannot be looked up; fetching them would fail, too.
        """
        self._run = bytes.fromhex(run)
        source = map(self._keyed, chunks)
        while first := list(_first(segment := _segment(source))):
            doors = doors_of(key for chunk in first for key in chunk.keys)
            self._segments.append((self._rows_read, doors))
            if self._reads:
                self._trail.begin_segment(doors, self._run)
            for chunk in chain(first, segment):
                self._rows_read += len(chunk.keys)
                yield self._looked_up(chunk)

    def save(self, rows: Rows[ContentT], results: Sequence[RowResult], paired: PairedRows) -> None:
        """Take in the results of the next rows; where a segment ends with them, write its new scores.

        :param paired: rows, of those taken in, whose mismatched pairs have come to be known.
        """
        for row, result in zip(self._underway.popleft(), results, strict=True):
            if row is None:
                self._unpaired.append(None)
                continue
            key, proviso = row
            score = (
                None
                if result.score is None
                else Score(result.score, result.truncated, run=self._run, unturned=result.unturned)
            )
            sure = proviso is None or self.images.was_read_as(*proviso)
            self._unpaired.append((key, score if sure else None))
        self._record(paired)
        if rows.ends_segment or self._recording.scores >= _MOST_WAITING:
            self._recording.flush()

    def save_last(self, paired: PairedRows) -> None:
        """Write what came behind the last whole segment: there are no more rows."""
        self._record(paired)
        self._recording.flush()

    def _record(self, paired: PairedRows) -> None:
        for mismatched in packed(paired.codes):
            if self._segments and self._segments[0][0] == self._rows_recorded:
                self._recording.begin_segment(self._segments.popleft()[1], self._run)
            self._rows_recorded += 1
            row = self._unpaired.popleft()
            if row is not None:
                key, score = row
                self._recording.add(key, None if score is None else score._replace(mismatched=mismatched))

    def _keyed(self, rows: Rows[ContentT]) -> _Keyed[ContentT]:
        known = rows.known or [None] * len(rows.texts)
        places = [
            self._locate(reference) if result is None and isinstance(text, str) and text.strip() else None
            for reference, text, result in zip(rows.references, rows.texts, known, strict=True)
        ]
        versions = self._versions.of([place if isinstance(place, ImageLocation) else None for place in places])
        keys = [
            self._keys.of(place if isinstance(place, str) else version, text)
            for place, version, text in zip(places, versions, rows.texts, strict=True)
        ]
        provisos = [
            (place, version) if isinstance(place, ImageLocation) and version is not None else None
            for place, version in zip(places, versions, strict=True)
        ]
        return _Keyed(rows, keys, provisos)

    def _looked_up(self, chunk: _Keyed[ContentT]) -> Rows[ContentT]:
        rows, keys = chunk.rows, chunk.keys
        scores: Sequence[Score | None] = self._trail.find(keys) if self._reads else [None] * len(keys)
        if self._with_sentences:
            scores = [None if score is not None and score.truncated else score for score in scores]
        scores = _without_those_to_pair(rows, scores)
        self.reused += sum(score is not None for score in scores)
        self._underway.append(
            [
                None if key is None else (key, None if score is not None else proviso)
                for key, proviso, score in zip(keys, chunk.provisos, scores, strict=True)
            ]
        )
        known = [
            result
            if score is None
            else RowResult(score.score, score.truncated, mismatched=score.mismatched, unturned=score.unturned)
            for result, score in zip(rows.known or [None] * len(keys), scores, strict=True)
        ]
        return replace(rows, known=known)

    def _locate(self, reference: object) -> ImageLocation | str | None:
        """Return where the image is, or the identity of one that came with the row: its bytes are not kept for it."""
        try:
            place = self.images.locate(reference)
        except RowError:
            return None
        if place.inline:
            return place.key
        self.images.expect(place)
        return place


def _without_those_to_pair(rows: Rows[ContentT], scores: Sequence[Score | None]) -> Sequence[Score | None]:
    """Return the scores but for those of rows that never had a mismatched pair, if there are partners for them now.

    Only what is encoded can be paired: such a row is, once more, beside others like it and rows that are new.
    """
    alone = [score is not None and score.mismatched == NO_PAIRS for score in scores]
    at_hand = [
        at
        for at, (score, result) in enumerate(zip(scores, rows.known or [None] * len(scores), strict=True))
        if result is None and (score is None or alone[at])
    ]
    if not any(alone) or len({rows.texts[at] for at in at_hand if isinstance(rows.texts[at], str)}) < 2:
        return scores
    if len(set(image_hashes([rows.references[at] for at in at_hand]).tolist())) < 2:
        return scores
    return [None if is_alone else score for score, is_alone in zip(scores, alone, strict=True)]


def _segment(chunks: Iterator[_Keyed[ContentT]]) -> Iterator[_Keyed[ContentT]]:
    """Yield the chunks up to the end of the segment."""
    for chunk in chunks:
        yield chunk
        if chunk.rows.ends_segment:
            return


def _first(chunks: Iterable[_Keyed[ContentT]]) -> Iterator[_Keyed[ContentT]]:
    """Yield the first chunks of a segment, as many as the entry is chosen from."""
    rows = size = 0
    for chunk in chunks:
        yield chunk
        rows, size = rows + len(chunk.keys), size + chunk.rows.size
        if rows >= _ROWS_OF_ENTRY or size >= _BYTES_OF_ENTRY:
            return
