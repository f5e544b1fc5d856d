"""The pipeline: rows are read ahead, images fetched and decoded, batches encoded, results given back in order."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic

import numpy as np
from numpy.typing import NDArray

from clip_operator.errors import Cancelled, JobError, Reason, RowError
from clip_operator.manifest import Throughput
from clip_operator.scoring.alignment import alignment
from clip_operator.scoring.encodings import Encoding, EncodingCache
from clip_operator.scoring.preparation import ImageJob, ImageSource, Preparation, Stage
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.rows import ContentT, Rows
from clip_operator.scoring.utilisation import Activity, Utilisation

if TYPE_CHECKING:
    import torch

    from clip_operator.images import ImageLocation
    from clip_operator.model import ClipEncoder, Tokens

_Row = RowResult | tuple[Encoding, Encoding]
"""What a row needs: its image's and its text's encoding; or, where that is known at once, what becomes of it."""

CHUNK_ROWS = 256
"""How many rows a chunk given to :meth:`Scorer.score` should have: texts are sorted by length within a chunk."""

# Chunks that are read and not yet given back. Rows wait here while their images are under way.
_CHUNKS_AHEAD = 16

# A batch of images takes in those of so many chunks, and then goes to the model even if it is not full: where most rows
# repeat earlier images, it must not wait for rows that are not read before it is done.
_CHUNKS_A_BATCH = 8

# The same bounds where rows are large. A batch closes before reading pauses, so that what is waited for always comes.
_BYTES_AHEAD = 64 << 20
_BYTES_A_BATCH = 32 << 20

# Images under way beside those of the batches that wait for the model: what hides the latency of a store.
_IMAGES_AHEAD = 48

_SECONDS_TO_NOTICE_STOP = 0.5


@dataclass(eq=False, slots=True, kw_only=True)
class _Image(ImageJob):
    """A distinct image on its way to the model, and where its embedding goes."""

    encoding: Encoding
    batch: _ImageBatch


@dataclass(eq=False, slots=True)
class _ImageBatch:
    """Distinct images that are encoded together, in the order in which rows first refer to them."""

    first_chunk: int
    first_byte: int
    images: list[_Image] = field(default_factory=list)
    unprepared: int = 0
    closed: bool = False


@dataclass(eq=False, slots=True)
class _TextBatch:
    """Distinct texts of about the same length that are encoded together."""

    texts: list[tuple[Tokens, Encoding]]


@dataclass(eq=False, slots=True)
class _Encoded:
    """Encodings, and what a lane has to say of them: their embeddings, or what went wrong."""

    encodings: list[Encoding]
    cache: EncodingCache
    embeddings: Future[torch.Tensor]


@dataclass(eq=False, slots=True)
class _Chunk(Generic[ContentT]):
    """Rows that were read and whose results are not given back yet."""

    source: Rows[ContentT]
    rows: list[_Row]
    first_unknown: int = 0

    def is_known(self) -> bool:
        while self.first_unknown < len(self.rows):
            row = self.rows[self.first_unknown]
            if not isinstance(row, RowResult) and not (row[0].known and row[1].known):
                return False
            self.first_unknown += 1
        return True


class Scorer:
    """Scores image-text pairs with one encoder.

    :param encoder: the model.
    :param images: where images come from.
    :param stop: when set, scoring raises :class:`Cancelled` soon.
    :param reduced: let JPEGs be decoded at a reduced size where the model needs less.
    :param cache_bytes: how much to remember of images and texts that were encoded, so that a later row that repeats one
        costs nothing; 0 encodes every row's anew.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        images: ImageSource,
        stop: threading.Event,
        *,
        reduced: bool = False,
        cache_bytes: int = 32 << 20,
    ) -> None:
        self._encoder = encoder
        self._images = images
        self._stop = stop
        self._reduced = reduced
        self._cache_bytes = cache_bytes
        self._run: _Run | None = None

    def score(self, chunks: Iterable[Rows[ContentT]]) -> Iterator[tuple[Rows[ContentT], list[RowResult]]]:
        """Yield each chunk with the results of its rows, in order.

        :param chunks: the rows; best :data:`CHUNK_ROWS` at a time.
        :raises Cancelled: ``stop`` was set.
        :raises JobError: what is not one row's fault, such as a store that does not answer.
        """
        most_ready = self._encoder.image_batch * (self._encoder.lanes + 1)
        events: SimpleQueue[_Image | _Encoded] = SimpleQueue()
        preparation: Preparation[_Image] = Preparation(
            self._images, self._encoder, self._reduced, most_ready + _IMAGES_AHEAD, done=events.put
        )
        with preparation, self._encoder.lane_pool() as lanes:
            self._run = _Run(self._encoder, self._images, self._stop, self._cache_bytes, preparation, lanes, events)
            yield from self._run.results(chunks)

    def throughput(self) -> Throughput:
        """Return how fast the last :meth:`score` was, and where its time went."""
        assert self._run is not None, "nothing has been scored"
        return self._run.throughput()


class _Run:
    """One pass over some rows. All its methods run in the caller's thread; other threads only put events."""

    def __init__(
        self,
        encoder: ClipEncoder,
        images: ImageSource,
        stop: threading.Event,
        cache_bytes: int,
        preparation: Preparation[_Image],
        lanes: Executor,
        events: SimpleQueue[_Image | _Encoded],
    ) -> None:
        self._encoder = encoder
        self._images = images
        self._stop = stop
        self._preparation = preparation
        self._lanes = lanes
        self._events = events
        self._known_images = EncodingCache(cache_bytes // 2, encoder.dimensions)
        self._known_texts = EncodingCache(cache_bytes // 2, encoder.dimensions)
        self._utilisation = Utilisation(encoder.lanes)
        self._rows = 0  # scored, or found impossible to score, by this run
        self._batch_size = encoder.image_batch
        self._chunks_read = 0
        self._bytes_read = 0
        self._all_read = False
        self._image_batches: deque[_ImageBatch] = deque()  # not given to a lane yet; the last may be open
        self._text_batches: deque[_TextBatch] = deque()  # not given to a lane yet
        self._encoding = 0  # batches that were given to a lane and are not back

    def results(self, chunks: Iterable[Rows[ContentT]]) -> Iterator[tuple[Rows[ContentT], list[RowResult]]]:
        source = iter(chunks)
        ahead: deque[_Chunk[ContentT]] = deque()
        while True:
            self._check_stop()
            while self._may_read(ahead):
                self._utilisation.idle_lanes_wait_for(Activity.READ)
                ahead.extend(self._read_one(source))
                self._close_batch()
                self._preparation.start()
                self._fill_lanes()
            if not ahead:
                return
            if ahead[0].is_known():
                chunk = ahead.popleft()
                results = self._score(chunk.rows)
                self._rows += len(results) - sum(result is not None for result in chunk.source.known or ())
                self._utilisation.idle_lanes_wait_for(Activity.WRITE)
                yield chunk.source, results
                self._handle_events(wait=False)
            else:
                self._utilisation.idle_lanes_wait_for(self._awaited())
                self._handle_events(wait=True)
            self._preparation.start()
            self._fill_lanes()

    def throughput(self) -> Throughput:
        seconds = self._utilisation.seconds
        return Throughput(
            seconds=round(seconds, 3),
            rows_per_second=round(self._rows / seconds, 2),
            time_shares=self._utilisation.shares(),
            images_encoded=self._known_images.added,
            images_reused=self._known_images.found,
            texts_encoded=self._known_texts.added,
            texts_reused=self._known_texts.found,
            batch_size=self._encoder.image_batch,
        )

    def _may_read(self, ahead: Collection[_Chunk[ContentT]]) -> bool:
        """Tell whether there are rows to read, and room for them."""
        if self._all_read or len(ahead) >= _CHUNKS_AHEAD or self._preparation.queued >= CHUNK_ROWS:
            return False
        return sum(chunk.source.size for chunk in ahead) < _BYTES_AHEAD

    def _read_one(self, source: Iterator[Rows[ContentT]]) -> Iterator[_Chunk[ContentT]]:
        """Yield the next chunk, planned, if there is one."""
        for rows in source:
            yield _Chunk(rows, self._plan(rows))
            self._chunks_read += 1
            self._bytes_read += rows.size
            if rows.ends_segment:
                self._begin_anew()
            return
        self._all_read = True

    def _begin_anew(self) -> None:
        """Let no row that comes share a batch or an encoding with those that were read."""
        self._known_images.forget_all()
        self._known_texts.forget_all()
        if self._image_batches:
            self._image_batches[-1].closed = True

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Cancelled("stopped before all rows were scored; nothing was written")

    def _plan(self, chunk: Rows[ContentT]) -> list[_Row]:
        """Say for each row which encodings it needs, and see to it that they come."""
        rows: list[_Row] = []
        new_texts: list[tuple[str, Encoding]] = []
        known = chunk.known or [None] * len(chunk.texts)
        for reference, text, result in zip(chunk.references, chunk.texts, known, strict=True):
            if result is not None:
                rows.append(result)
                continue
            try:
                # The text first: it costs nothing, and a row without one needs no image.
                caption, key = _checked(text)
                location = self._images.locate(reference)
            except RowError as error:
                rows.append(RowResult(None, error=error))
                continue
            caption_encoding = self._known_texts.get(key)
            if caption_encoding is None:
                caption_encoding = self._known_texts.add(key)
                new_texts.append((caption, caption_encoding))
            rows.append((self._image_at(location), caption_encoding))
        self._add_texts(new_texts)
        return rows

    def _image_at(self, location: ImageLocation) -> Encoding:
        key = _digest(location.key.encode())
        encoding = self._known_images.get(key)
        if encoding is None:
            encoding = self._known_images.add(key)
            if not self._image_batches or self._image_batches[-1].closed:
                self._image_batches.append(_ImageBatch(self._chunks_read, self._bytes_read))
            batch = self._image_batches[-1]
            image = _Image(location, encoding=encoding, batch=batch)
            batch.images.append(image)
            batch.unprepared += 1
            batch.closed = len(batch.images) >= self._batch_size
            self._preparation.submit(image)
        return encoding

    def _add_texts(self, texts: list[tuple[str, Encoding]]) -> None:
        if not texts:
            return
        tokens = self._encoder.tokenize([text for text, _ in texts])
        by_length = sorted(zip(tokens, (encoding for _, encoding in texts), strict=True), key=lambda t: -len(t[0]))
        while by_length:
            size = self._encoder.text_batch(len(by_length[0][0]))
            self._text_batches.append(_TextBatch(by_length[:size]))
            del by_length[:size]

    def _close_batch(self) -> None:
        """Close the batch that is open if it need not, or must not, wait for more images."""
        if self._image_batches:
            batch = self._image_batches[-1]
            batch.closed |= self._all_read or self._chunks_read - batch.first_chunk >= _CHUNKS_A_BATCH
            batch.closed |= self._bytes_read - batch.first_byte >= _BYTES_A_BATCH

    def _fill_lanes(self) -> None:
        """Give lanes the batches that are ready, and one more, so that none has to wait for this thread."""
        while self._encoding <= self._encoder.lanes:
            if self._text_batches:
                self._encode_texts(self._text_batches.popleft())
                continue
            ready = next((b for b in self._image_batches if b.closed and b.unprepared == 0), None)
            if ready is None:
                return
            self._image_batches.remove(ready)
            self._encode_images(ready)

    def _encode_texts(self, batch: _TextBatch) -> None:
        tokens = [tokens for tokens, _ in batch.texts]
        encodings = [encoding for _, encoding in batch.texts]
        for text, encoding in batch.texts:
            encoding.truncated = text.truncated
        self._encode(encodings, self._known_texts, lambda: self._encoder.encode_texts(tokens))

    def _encode_images(self, batch: _ImageBatch) -> None:
        images = [image for image in batch.images if image.error is None]
        pixels = [image.pixels for image in images]
        for image in images:
            image.pixels = None
        batch.images.clear()  # they refer to their batch: in a circle, they would stay until the garbage is collected
        if images:
            encodings = [image.encoding for image in images]
            self._encode(encodings, self._known_images, lambda: self._encoder.encode_images(pixels))

    def _encode(self, encodings: list[Encoding], cache: EncodingCache, compute: Callable[[], torch.Tensor]) -> None:
        def compute_in_lane() -> torch.Tensor:
            with self._utilisation.computing():
                return compute()

        self._encoding += 1
        future = self._lanes.submit(compute_in_lane)
        future.add_done_callback(lambda done: self._events.put(_Encoded(encodings, cache, done)))

    def _awaited(self) -> Activity:
        """Return what a lane with nothing to do waits for."""
        for batch in self._image_batches:
            for image in batch.images:
                if image.stage is not Stage.DONE:
                    return Activity.DECODE if image.stage is Stage.DECODING else Activity.FETCH
        return Activity.ENCODE

    def _handle_events(self, wait: bool) -> None:
        """Take note of all that happened; with ``wait``, of at least one thing, unless none comes for a while."""
        timeout = _SECONDS_TO_NOTICE_STOP if wait else 0
        try:
            while True:
                event = self._events.get(timeout=timeout) if timeout else self._events.get_nowait()
                timeout = 0
                if isinstance(event, _Encoded):
                    self._take_embeddings(event)
                else:
                    self._take_image(event)
        except Empty:
            return

    def _take_image(self, image: _Image) -> None:
        image.batch.unprepared -= 1
        if isinstance(image.error, RowError):
            image.encoding.error = image.error
            self._preparation.release(1)
        elif image.error is not None:
            raise image.error

    def _take_embeddings(self, encoded: _Encoded) -> None:
        self._encoding -= 1
        for encoding, embedding in zip(encoded.encodings, encoded.embeddings.result().numpy(), strict=True):
            encoded.cache.complete(encoding, embedding)
        if encoded.cache is self._known_images:
            self._preparation.release(len(encoded.encodings))

    def _score(self, rows: list[_Row]) -> list[RowResult]:
        pairs = [row for row in rows if not isinstance(row, RowResult) and row[0].error is None]
        scores = iter(self._alignment(pairs) if pairs else ())
        results = []
        for row in rows:
            if isinstance(row, RowResult):
                results.append(row)
            elif row[0].error is not None:
                results.append(RowResult(None, error=row[0].error))
            else:
                # The shortest decimal of the float32 is what the computation knows; its float64 would pretend more.
                results.append(RowResult(float(str(next(scores))), truncated=row[1].truncated))
        return results

    def _alignment(self, pairs: list[tuple[Encoding, Encoding]]) -> NDArray[np.float32]:
        scores = alignment(_stacked(image for image, _ in pairs), _stacked(text for _, text in pairs))
        if not np.isfinite(scores).all():
            raise JobError(
                "the model gave a score that is not a number; its weights are damaged, or the precision is too low: "
                "try precision fp32"
            )
        return scores


def _stacked(encodings: Iterable[Encoding]) -> NDArray[np.float32]:
    """Return the embeddings of known encodings: float32 [encodings, dimensions]."""
    return np.stack([encoding.embedding for encoding in encodings if encoding.embedding is not None])


def _checked(text: object) -> tuple[str, bytes]:
    """Return the caption and what it is remembered by, or raise :class:`RowError`."""
    if text is None or (isinstance(text, float) and text != text):
        raise RowError(Reason.TEXT_MISSING, "the caption is absent or null")
    if not isinstance(text, str):
        raise RowError(Reason.TEXT_INVALID, f"the caption is of type {type(text).__name__}, not a string")
    if not text.strip():
        raise RowError(Reason.TEXT_EMPTY, "the caption is empty")
    try:
        return text, _digest(text.encode())
    except UnicodeEncodeError:
        raise RowError(Reason.TEXT_INVALID, "the caption holds half of a surrogate pair, which is no text") from None


def _digest(data: bytes) -> bytes:
    # 16 bytes: among 10^12 images the chance that two agree is below 10^-14.
    return hashlib.blake2b(data, digest_size=16).digest()
