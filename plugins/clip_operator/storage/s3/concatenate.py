"""Objects in S3 one after another into a new one: copied by the server where it can, read and sent where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate

from botocore.exceptions import ClientError

from clip_operator.machine.threads import in_threads
from clip_operator.storage.objects import ObjectInfo
from clip_operator.storage.s3.buffer import PartBuffer
from clip_operator.storage.s3.client import split
from clip_operator.storage.s3.errors import is_changed, is_not_found, is_not_known
from clip_operator.storage.s3.multipart import MultipartUpload
from clip_operator.storage.s3.parts import LEAST_PART_BYTES, MAX_PARTS, MOST_PART_BYTES, PART_BYTES, THREADS, ByteRange
from clip_operator.storage.s3.publication import Publication
from clip_operator.storage.s3.ranges import S3Version
from clip_operator.storage.s3.upload import put

# A copy gives no sign of life until it is done, so it must be done well before the request counts as dead.
_COPY_BYTES = 128 << 20
_READING_THREADS = 16  # in all, for the few parts that are made at the same time


@dataclass(frozen=True)
class SourceRange:
    """Some of one source's bytes."""

    source: ObjectInfo
    start: int
    length: int


@dataclass(frozen=True)
class Part:
    """A part of the new object, by where its bytes come from.

    :param ranges: in their order; only one, if it is copied.
    :param copied: the server copies it by itself; else they are read and sent.
    """

    ranges: tuple[SourceRange, ...]
    copied: bool

    @property
    def length(self) -> int:
        """Bytes in all."""
        return sum(some.length for some in self.ranges)


class _NoCopies(Exception):
    """The server does not copy parts."""


def plan_parts(sources: Sequence[ObjectInfo], bucket: str | None) -> list[Part]:
    """Return the parts of which the sources' bytes are made, within S3's limits on their sizes and number.

    :param bucket: the bucket in which the server can copy; None: nowhere.
    """
    least = LEAST_PART_BYTES
    while True:
        parts = list(_parts(sources, bucket, least))
        if len(parts) <= MAX_PARTS or least > MOST_PART_BYTES:  # more than an object may have: the server says so
            return parts
        least *= 2  # what is smaller is gathered into parts of that size


def _parts(sources: Sequence[ObjectInfo], bucket: str | None, least: int) -> Iterator[Part]:
    gathered: list[SourceRange] = []
    size = 0
    gathering = max(PART_BYTES, least)  # parts that are sent anyway are made as large as an upload's are
    for source in sources:
        start = 0
        can_copy = bucket is not None and split(source.uri)[0] == bucket
        while start < source.size:
            left = source.size - start
            missing = max(0, least - size) if gathered else 0
            if can_copy and left - missing >= least:
                if missing:  # what was gathered needs some more, and then the rest can be copied
                    gathered.append(SourceRange(source, start, missing))
                    start += missing
                if gathered:
                    yield Part(tuple(gathered), copied=False)
                    gathered, size = [], 0
                for begin, length in _ranges(source.size - start, max(_COPY_BYTES, least)):
                    yield Part((SourceRange(source, start + begin, length),), copied=True)
                break
            length = min(left, gathering - size)
            gathered.append(SourceRange(source, start, length))
            start += length
            size += length
            if size == gathering:
                yield Part(tuple(gathered), copied=False)
                gathered, size = [], 0
    if gathered:
        yield Part(tuple(gathered), copied=False)


def _ranges(size: int, most: int) -> Iterator[ByteRange]:
    """Yield equal ranges that make up ``size`` bytes, none of them longer than ``most``."""
    count = -(-size // min(most, MOST_PART_BYTES))
    for number in range(count):
        begin = size * number // count
        yield ByteRange(begin, size * (number + 1) // count - begin)


class Concatenation:
    """One new object of the bytes of others.

    :param publication: where it appears.
    :param version: returns what reads a source.
    """

    def __init__(self, publication: Publication, version: Callable[[ObjectInfo], S3Version]) -> None:
        self._publication = publication
        self._version = version
        self._grace_seconds = publication.s3.timeout_seconds

    def of(self, sources: Sequence[ObjectInfo]) -> ObjectInfo:
        """Publish the object.

        :raises ObjectChanged: a source is not that version any more, or the publication's condition does not hold.
        """
        self._publication.check()
        in_threads(_READING_THREADS, lambda source: self._version(source).check(), _empty(sources))
        try:
            return self._publish(plan_parts(sources, self._publication.place["Bucket"]))
        except _NoCopies:
            return self._publish(plan_parts(sources, None))

    def _publish(self, parts: Sequence[Part]) -> ObjectInfo:
        if len(parts) == 0 or (len(parts) == 1 and not parts[0].copied):
            with self._gathered(parts[0] if parts else Part((), copied=False), _READING_THREADS) as buffer:
                return put(self._publication, buffer.body(self._grace_seconds))
        readers = _READING_THREADS // min(THREADS, len(parts))
        with MultipartUpload(self._publication) as upload:

            def make(numbered: tuple[int, Part]) -> None:
                number, part = numbered
                if part.copied:
                    self._copy(upload, number, part.ranges[0])
                else:
                    with self._gathered(part, readers) as buffer:
                        upload.send(number, buffer.body(self._grace_seconds))

            in_threads(THREADS, make, enumerate(parts, start=1))
            return upload.complete(sum(part.length for part in parts))

    @contextmanager
    def _gathered(self, part: Part, readers: int) -> Iterator[PartBuffer]:
        with closing(PartBuffer(part.length)) as buffer:

            def fetch(placed: tuple[SourceRange, int]) -> None:
                some, position = placed
                self._version(some.source).fetch(some.start, some.length, buffer.put, position)

            positions = accumulate((some.length for some in part.ranges), initial=0)
            in_threads(readers, fetch, zip(part.ranges, positions, strict=False))
            yield buffer

    def _copy(self, upload: MultipartUpload, number: int, copied: SourceRange) -> None:
        version = self._version(copied.source)
        s3 = self._publication.s3
        for attempt in range(s3.max_attempts):
            with s3.errors_explained(copied.source.uri):
                try:
                    upload.copy(number, copied.source, copied.start, copied.length)
                    version.check()  # a server may ignore the condition in silence
                    return
                except ClientError as error:
                    if is_not_known(error):
                        raise _NoCopies from None
                    if not (is_changed(error) or is_not_found(error)) or attempt == s3.max_attempts - 1:
                        raise
            version.check()


def _empty(sources: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """Return those of which no byte is asked for, which would tell that they have changed."""
    return [source for source in sources if not source.size]
