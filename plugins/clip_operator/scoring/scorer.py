"""The pipeline: rows are read ahead, images fetched and decoded, batches encoded, results given back in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from clip_operator.errors import Cancelled, RowError
from clip_operator.machine.processors import usable_cpus
from clip_operator.proof.manifest import Throughput
from clip_operator.request import Aggregate
from clip_operator.scoring.batching import BatchedChunk, BatchedImage, Batcher, ImageBatch, TextBatch
from clip_operator.scoring.encodings import Encoding, EncodingCache
from clip_operator.scoring.mismatched import PairedRows, PairMaker
from clip_operator.scoring.pairs import Row, RowEmbeddings, row_embeddings, row_results
from clip_operator.scoring.preparation import ImageSource, Preparation, preparation
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.rows import ContentT, Rows
from clip_operator.scoring.utilisation import Activity, Utilisation

if TYPE_CHECKING:
    import torch

    from clip_operator.model import ClipEncoder

CHUNK_ROWS = 256
"""How many rows a chunk given to :meth:`Scorer.score` should have: texts are sorted by length within a chunk."""

# Chunks that are read and not yet given back. Rows wait here while their images are under way. The second bound is for
# where rows are large; a batch of images closes before either is reached.
_CHUNKS_AHEAD = 16
_BYTES_AHEAD = 64 << 20

# Images under way for each processor, beside those of the batches that wait for the model: what hides the latency of a
# store.
_IMAGES_AHEAD = 24

_SECONDS_TO_NOTICE_STOP = 0.5

# Images are waited for because they must be decoded, and not fetched, where that took more of the last time.
_MOSTLY = 0.5


@dataclass(eq=False, slots=True)
class _Encoded:
    """Encodings, and what a lane has to say of them: their embeddings, or what went wrong."""

    encodings: list[Encoding]
    cache: EncodingCache
    embeddings: Future[torch.Tensor]
    images: Sequence[BatchedImage]


class Scorer:
    """Scores image-text pairs with one encoder.

    :param encoder: the model.
    :param images: where images come from.
    :param stop: when set, scoring raises :class:`Cancelled` soon.
    :param reduced: let JPEGs be decoded at a reduced size where the model needs less.
    :param cache_bytes: how much to remember of images and texts that were encoded, so that a later row that repeats one
        costs nothing; 0 encodes every row's anew.
    :param with_sentences: score also, each on its own, the sentences of texts that are longer than the model reads.
    :param aggregate: what a row with several images or texts gets of the scores of its pairs; None for no score.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        images: ImageSource,
        stop: threading.Event,
        *,
        reduced: bool = False,
        cache_bytes: int = 32 << 20,
        with_sentences: bool = False,
        aggregate: Aggregate | None = None,
    ) -> None:
        self._encoder = encoder
        self._images = images
        self._stop = stop
        self._reduced = reduced
        self._cache_bytes = cache_bytes
        self._with_sentences = with_sentences
        self._aggregate = aggregate
        self._run: _Run | None = None

    def score(self, chunks: Iterable[Rows[ContentT]]) -> Iterator[tuple[Rows[ContentT], list[RowResult]]]:
        """Yield each chunk with the results of its rows, in order.

        :param chunks: the rows; best :data:`CHUNK_ROWS` at a time.
        :raises Cancelled: ``stop`` was set.
        :raises JobError: what is not one row's fault, such as a store that does not answer.
        """
        most_ready = self._encoder.image_batch * (self._encoder.lanes + 1)
        events: SimpleQueue[BatchedImage | _Encoded] = SimpleQueue()
        done: Callable[[BatchedImage], None] = events.put
        most = most_ready + _IMAGES_AHEAD * usable_cpus()
        with (
            preparation(self._images, self._encoder, self._reduced, most, done=done) as prepared,
            self._encoder.lane_pool() as lanes,
        ):
            batcher = Batcher(
                self._encoder,
                self._images,
                self._cache_bytes,
                self._with_sentences,
                self._aggregate,
                submit=prepared.submit,
            )
            self._run = _Run(self._encoder, self._images, batcher, self._aggregate, self._stop, prepared, lanes, events)
            yield from self._run.results(chunks)

    def saving(self) -> None:
        """Say that from now on, until the next rows are asked for, it is the saving of results that takes the time."""
        assert self._run is not None, "nothing has been scored"
        self._run.saving()

    def take_pairs(self) -> PairedRows:
        """Return the rows that are next in line of those that :meth:`score` gave back, as far as it is decided which
        mismatched pairs they have: all up to the end of the last segment and, after the last rows, the others.
        """
        assert self._run is not None, "nothing has been scored"
        return self._run.pairs.take()

    def embeddings(self) -> RowEmbeddings:
        """Return the embeddings of the rows that :meth:`score` gave back last, as far as it has computed them."""
        assert self._run is not None, "nothing has been scored"
        return row_embeddings(self._run.given_back)

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
        batcher: Batcher,
        aggregate: Aggregate | None,
        stop: threading.Event,
        preparation: Preparation[BatchedImage],
        lanes: Executor,
        events: SimpleQueue[BatchedImage | _Encoded],
    ) -> None:
        self._encoder = encoder
        self._images = images
        self._planner = batcher
        self._aggregate = aggregate
        self._stop = stop
        self._preparation = preparation
        self._lanes = lanes
        self._events = events
        self._utilisation = Utilisation(encoder.lanes)
        self._rows = 0  # scored, or found impossible to score, by this run
        self._all_read = False
        self._encoding = 0  # batches that were given to a lane and are not back
        self.pairs = PairMaker()
        self.given_back: Sequence[Row] = ()
        """The rows whose results were given back last."""

    def results(self, chunks: Iterable[Rows[ContentT]]) -> Iterator[tuple[Rows[ContentT], list[RowResult]]]:
        source = iter(chunks)
        ahead: deque[BatchedChunk[ContentT]] = deque()
        while True:
            self._check_stop()
            while self._may_read(ahead):
                self._utilisation.idle_lanes_wait_for(Activity.READ)
                ahead.extend(self._read_one(source))
                self._planner.close_batch(self._all_read)
                self._preparation.start()
                self._fill_lanes()
            if not ahead:
                self.pairs.end_block()
                self._utilisation.end()
                return
            if ahead[0].is_known():
                chunk = ahead.popleft()
                results, embedded = row_results(chunk.rows, self._aggregate)
                self.pairs.add(chunk.source.references, results, embedded)
                if chunk.source.ends_segment:
                    self.pairs.end_block()
                self._rows += len(results) - sum(result is not None for result in chunk.source.known or ())
                self._utilisation.idle_lanes_wait_for(Activity.WRITE)
                self.given_back = chunk.rows
                yield chunk.source, results
                self._handle_events(wait=False)
            else:
                self._utilisation.idle_lanes_wait_for(self._awaited())
                self._handle_events(wait=True)
            self._preparation.start()
            self._fill_lanes()

    def saving(self) -> None:
        self._utilisation.idle_lanes_wait_for(Activity.SAVE)

    def throughput(self) -> Throughput:
        seconds = self._utilisation.seconds
        return Throughput(
            seconds=round(seconds, 3),
            rows_per_second=round(self._rows / seconds, 2),
            time_shares=self._utilisation.shares(),
            images_encoded=self._planner.known_images.added,
            images_reused=self._planner.images_reused,
            texts_encoded=self._planner.known_texts.added,
            texts_reused=self._planner.texts_reused,
            batch_size=self._encoder.image_batch,
        )

    def _may_read(self, ahead: Collection[BatchedChunk[ContentT]]) -> bool:
        """Tell whether there are rows to read, and room for them."""
        if self._all_read or len(ahead) >= _CHUNKS_AHEAD or self._preparation.queued >= CHUNK_ROWS:
            return False
        return sum(chunk.size for chunk in ahead) < _BYTES_AHEAD

    def _read_one(self, source: Iterator[Rows[ContentT]]) -> Iterator[BatchedChunk[ContentT]]:
        """Yield the next chunk, planned, if there is one."""
        for rows in source:
            yield self._planner.plan(rows)
            if rows.ends_segment:
                self._planner.begin_anew()
            return
        self._all_read = True

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Cancelled("stopped before all rows were scored; nothing was written")

    def _fill_lanes(self) -> None:
        """Give lanes the batches that are ready, and one more, so that none has to wait for this thread."""
        while self._encoding <= self._encoder.lanes:
            if texts := self._planner.take_texts():
                self._encode_texts(texts)
            elif images := self._planner.take_images():
                self._encode_images(images)
            else:
                return

    def _encode_texts(self, batch: TextBatch) -> None:
        tokens = [tokens for tokens, _ in batch.texts]
        encodings = [encoding for _, encoding in batch.texts]
        self._encode(encodings, self._planner.known_texts, lambda: self._encoder.encode_texts(tokens))

    def _encode_images(self, batch: ImageBatch) -> None:
        images = [image for image in batch.images if image.error is None]
        pixels = [image.pixels for image in images]
        for image in images:
            image.pixels = None
        batch.images.clear()  # they refer to their batch: in a circle, they would stay until the garbage is collected
        if images:
            encodings = [image.encoding for image in images]
            self._encode(encodings, self._planner.known_images, lambda: self._encoder.encode_images(pixels), images)

    def _encode(
        self,
        encodings: list[Encoding],
        cache: EncodingCache,
        compute: Callable[[], torch.Tensor],
        images: Sequence[BatchedImage] = (),
    ) -> None:
        def compute_in_lane() -> torch.Tensor:
            with self._utilisation.computing():
                return compute()

        self._encoding += 1
        future = self._lanes.submit(compute_in_lane)
        future.add_done_callback(lambda done: self._events.put(_Encoded(encodings, cache, done, images)))

    def _awaited(self) -> Activity:
        """Return what a lane with nothing to do waits for."""
        if self._planner.first_unprepared() is None:
            return Activity.ENCODE
        return Activity.DECODE if self._images.decoding > _MOSTLY else Activity.FETCH

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

    def _take_image(self, image: BatchedImage) -> None:
        image.batch.unprepared -= 1
        image.encoding.unturned = image.unturned
        if isinstance(image.error, RowError):
            # It may be remembered for long, and must not keep the frames that it came through.
            image.error.__traceback__ = image.error.__context__ = None
            image.encoding.error = image.error
            self._preparation.release(image)
        elif image.error is not None:
            raise image.error

    def _take_embeddings(self, encoded: _Encoded) -> None:
        self._encoding -= 1
        for encoding, embedding in zip(encoded.encodings, encoded.embeddings.result().numpy(), strict=True):
            encoded.cache.complete(encoding, embedding)
        for image in encoded.images:
            self._preparation.release(image)
