"""Plans which images and texts rows need, each distinct one once, and gathers them into batches for the model."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from clip_operator.errors import Reason, RowError
from clip_operator.request import Aggregate
from clip_operator.scoring.encodings import Encoding, EncodingCache
from clip_operator.scoring.pairs import Pair, Pairs, Row
from clip_operator.scoring.preparation import ImageSource, PreparedImage
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.rows import ContentT, Rows
from clip_operator.scoring.sentences import sentences
from clip_operator.scoring.several import check_several, of_item
from clip_operator.tables import held

if TYPE_CHECKING:
    from clip_operator.images import ImageLocation
    from clip_operator.model import ClipEncoder, Tokens

ItemT = TypeVar("ItemT")

# A batch of images takes in those of so many chunks, and then goes to the model even if it is not full: where most rows
# repeat earlier images, it must not wait for rows that are not read before it is done.
_CHUNKS_A_BATCH = 8

# The same bound where rows are large. A batch closes before reading pauses, so that what is waited for always comes.
_BYTES_A_BATCH = 32 << 20

# The Python objects around the embedding of a sentence, or of another image or text of a row, in bytes, roughly.
_BYTES_BESIDE_FURTHER = 2048


@dataclass(eq=False, slots=True, kw_only=True)
class BatchedImage(PreparedImage):
    """A distinct image on its way to the model, and where its embedding goes."""

    encoding: Encoding
    batch: ImageBatch


@dataclass(eq=False, slots=True)
class ImageBatch:
    """Distinct images that are encoded together, in the order in which rows first refer to them.

    :param unprepared: how many of them have neither pixels nor an error yet.
    :param closed: no further one is put in.
    """

    first_chunk: int
    first_byte: int
    images: list[BatchedImage] = field(default_factory=list)
    unprepared: int = 0
    closed: bool = False


@dataclass(eq=False, slots=True)
class TextBatch:
    """Distinct texts of about the same length that are encoded together."""

    texts: list[tuple[Tokens, Encoding]]


@dataclass(eq=False, slots=True)
class BatchedChunk(Generic[ContentT]):
    """Rows that were read, and what their results wait for.

    :param size: bytes that all of it takes in memory, roughly.
    """

    source: Rows[ContentT]
    rows: list[Row]
    size: int
    first_unknown: int = 0

    def is_known(self) -> bool:
        """Whether every row's encodings are known."""
        while self.first_unknown < len(self.rows):
            row = self.rows[self.first_unknown]
            if not isinstance(row, RowResult) and not row.known:
                return False
            self.first_unknown += 1
        return True


class Batcher:
    """Says for each row which encodings it needs, and puts those that are not there into batches.

    What is in a batch depends on the rows alone and never on time. All methods belong to one thread.

    :param encoder: whose batches they are.
    :param images: where images come from.
    :param cache_bytes: how much to remember of images and texts.
    :param with_sentences: plan also the sentences of texts that are longer than the model reads.
    :param aggregate: what a row with several images or texts gets.
    :param submit: called with each image that is to be prepared.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        images: ImageSource,
        cache_bytes: int,
        with_sentences: bool,
        aggregate: Aggregate | None,
        submit: Callable[[BatchedImage], None],
    ) -> None:
        self._encoder = encoder
        self._images = images
        self._with_sentences = with_sentences
        self._aggregate = aggregate
        self._submit = submit
        self._batch_size = encoder.image_batch
        self._bytes_of_further = 4 * encoder.dimensions + _BYTES_BESIDE_FURTHER
        self._image_batches: deque[ImageBatch] = deque()  # not taken yet; the last may be open
        self._text_batches: deque[TextBatch] = deque()  # not taken yet
        self._chunks_read = 0
        self._bytes_read = 0
        self.known_images = EncodingCache(cache_bytes // 2, encoder.dimensions)
        self.known_texts = EncodingCache(cache_bytes // 2, encoder.dimensions)
        self.images_reused = 0
        """How many images of rows were those of earlier rows."""
        self.texts_reused = 0
        """How many texts of rows were those of earlier rows; sentences of texts are none of these."""

    def plan(self, chunk: Rows[ContentT]) -> BatchedChunk[ContentT]:
        """Say for each row which encodings it needs, and see to it that they come."""
        rows: list[Row] = []
        captions: dict[int, str] = {}  # of the rows with one image and one text
        new_texts: list[tuple[str, Encoding]] = []
        known = chunk.known or [None] * len(chunk.texts)
        images_before, images, texts, further = self.known_images.added, 0, 0, 0
        for reference, text, result in zip(chunk.references, chunk.texts, known, strict=True):
            if result is not None:
                rows.append(result)
                continue
            try:
                # The texts first: they cost nothing, and a row without one needs no image.
                of_row = self._captions_and_places(reference, text)
            except RowError as error:
                rows.append(RowResult(None, error=error))
                continue
            row = self._needed(*of_row, new_texts)
            images, texts = images + len(of_row[1]), texts + len(of_row[0])
            if isinstance(row, Pair):
                captions[len(rows)] = of_row[0][0]
            else:
                further += len(row.images) + len(row.texts)
            rows.append(row)
        self.images_reused += images - (self.known_images.added - images_before)
        self.texts_reused += texts - len(new_texts)
        self._add_texts(new_texts)
        if self._with_sentences:
            self._plan_sentences(rows, captions)
        further += sum(len(row.sentences) for row in rows if isinstance(row, Pair))
        planned = BatchedChunk(chunk, rows, chunk.size + further * self._bytes_of_further)
        self._chunks_read += 1
        self._bytes_read += planned.size
        return planned

    def begin_anew(self) -> None:
        """Let no row that comes share a batch or an encoding with those that were planned."""
        self.known_images.forget_all()
        self.known_texts.forget_all()
        if self._image_batches:
            self._image_batches[-1].closed = True

    def close_batch(self, all_read: bool) -> None:
        """Close the batch that is open if it need not, or must not, wait for more images.

        :param all_read: there are no more.
        """
        if self._image_batches:
            batch = self._image_batches[-1]
            batch.closed |= all_read or self._chunks_read - batch.first_chunk >= _CHUNKS_A_BATCH
            batch.closed |= self._bytes_read - batch.first_byte >= _BYTES_A_BATCH

    def take_texts(self) -> TextBatch | None:
        """Return the next batch of texts, or None if there is none."""
        return self._text_batches.popleft() if self._text_batches else None

    def take_images(self) -> ImageBatch | None:
        """Return the first batch of images that is closed and prepared, or None if there is none."""
        ready = next((b for b in self._image_batches if b.closed and b.unprepared == 0), None)
        if ready is not None:
            self._image_batches.remove(ready)
        return ready

    def first_unprepared(self) -> BatchedImage | None:
        """Return the first image, of those in the batches, that is not prepared yet."""
        images = (image for batch in self._image_batches for image in batch.images)
        return next((image for image in images if not image.prepared), None)

    def _captions_and_places(self, reference: object, text: object) -> tuple[list[str], list[ImageLocation]]:
        """Return what a row's cells hold; raise :class:`RowError` if that is nothing to score."""
        references, texts = held(reference), held(text)
        check_several(references, texts, self._aggregate)
        return _of_each(_checked, texts, "caption"), _of_each(self._images.locate, references, "image")

    def _needed(
        self, captions: Sequence[str], places: Sequence[ImageLocation], new_texts: list[tuple[str, Encoding]]
    ) -> Pair | Pairs:
        """Return the encodings that a row needs, and see to it that they come."""
        texts = [self._text_of(caption, new_texts) for caption in captions]
        images = [self._image_at(place) for place in places]
        return Pair(images[0], texts[0]) if len(images) == len(texts) == 1 else Pairs(images, texts)

    def _text_of(self, text: str, new: list[tuple[str, Encoding]]) -> Encoding:
        """Return a text's encoding; one that is not remembered goes to the ``new`` ones."""
        key = _digest(text.encode())
        encoding = self.known_texts.get(key)
        if encoding is None:
            encoding = self.known_texts.add(key)
            new.append((text, encoding))
        return encoding

    def _image_at(self, location: ImageLocation) -> Encoding:
        key = _digest(location.key.encode())
        encoding = self.known_images.get(key)
        if encoding is None:
            encoding = self.known_images.add(key)
            if not self._image_batches or self._image_batches[-1].closed:
                self._image_batches.append(ImageBatch(self._chunks_read, self._bytes_read))
            batch = self._image_batches[-1]
            image = BatchedImage(location, encoding=encoding, batch=batch)
            batch.images.append(image)
            batch.unprepared += 1
            batch.closed = len(batch.images) >= self._batch_size
            self._submit(image)
        return encoding

    def _add_texts(self, texts: list[tuple[str, Encoding]]) -> None:
        if not texts:
            return
        tokens = self._encoder.tokenize([text for text, _ in texts])
        for (_, encoding), of_text in zip(texts, tokens, strict=True):
            encoding.truncated = of_text.truncated
        by_length = sorted(zip(tokens, (encoding for _, encoding in texts), strict=True), key=lambda t: -len(t[0]))
        while by_length:
            size = self._encoder.text_batch(len(by_length[0][0]))
            self._text_batches.append(TextBatch(by_length[:size]))
            del by_length[:size]

    def _plan_sentences(self, rows: list[Row], captions: dict[int, str]) -> None:
        """Put to the rows with texts that are cut what is needed for each of their sentences."""
        new_texts: list[tuple[str, Encoding]] = []
        for index, caption in captions.items():
            row = rows[index]
            if isinstance(row, Pair) and row.text.truncated:
                parts = [(part, self._text_of(part, new_texts)) for part in sentences(caption)]
                rows[index] = Pair(row.image, row.text, parts)
        self._add_texts(new_texts)


def _of_each(look: Callable[[object], ItemT], items: Sequence[object], what: str) -> list[ItemT]:
    """Look at each item of a cell; an error says which of several it is of."""
    seen: list[ItemT] = []
    for item in items:
        try:
            seen.append(look(item))
        except RowError as error:
            raise of_item(error, what, len(seen) + 1, len(items)) from None
    return seen


def _checked(text: object) -> str:
    """Return the caption, or raise :class:`RowError`."""
    if text is None or (isinstance(text, float) and text != text):
        raise RowError(Reason.TEXT_MISSING, "the caption is absent or null")
    if not isinstance(text, str):
        raise RowError(Reason.TEXT_INVALID, f"the caption is of type {type(text).__name__}, not a string")
    if not text.strip():
        raise RowError(Reason.TEXT_EMPTY, "the caption is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError(Reason.TEXT_INVALID, "the caption holds half of a surrogate pair, which is no text") from None
    return text


def _digest(data: bytes) -> bytes:
    # 16 bytes: among 10^12 images the chance that two agree is below 10^-14.
    return hashlib.blake2b(data, digest_size=16).digest()
