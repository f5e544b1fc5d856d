"""Objects in S3 one after another into a new one: copied by the server where it can, read and sent where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from botocore.exceptions import ClientError

from clip_operator.storage.objects import ObjectInfo
from clip_operator.storage.s3.buffer import PartBuffer
from clip_operator.storage.s3.client import split
from clip_operator.storage.s3.errors import is_changed, is_not_found, is_not_known
from clip_operator.storage.s3.multipart import MultipartUpload
from clip_operator.storage.s3.parts import LEAST_PART_BYTES, MAX_PARTS, MOST_PART_BYTES, PART_BYTES, in_threads
from clip_operator.storage.s3.publication import Publication
from clip_operator.storage.s3.ranges import S3Version
from clip_operator.storage.s3.upload import put

# A copy gives no sign of life until it is done, so it must be done well before the request counts as dead.
_COPY_BYTES = 128 << 20
_READING_THREADS = 16


@dataclass(frozen=True)
class Slice:
    """A range of one source's bytes."""

    source: ObjectInfo
    start: int
    length: int


@dataclass(frozen=True)
class PartPlan:
    """Where the bytes of one part come from.

    :param slices: in their order; only one, if it is copied.
    :param copied: the server copies it by itself; else they are read and sent.
    """

    slices: tuple[Slice, ...]
    copied: bool

    @property
    def length(self) -> int:
        """Bytes in all."""
        return sum(piece.length for piece in self.slices)


class _NoCopies(Exception):
    """The server does not copy parts."""


def plan_parts(sources: Sequence[ObjectInfo], bucket: str | None) -> list[PartPlan]:
    """Return the parts of which the sources' bytes are made, within S3's limits on their sizes and number.

    :param bucket: the bucket in which the server can copy; None: nowhere.
    """
    least = LEAST_PART_BYTES
    while True:
        plans = list(_parts(sources, bucket, least))
        if len(plans) <= MAX_PARTS or least > MOST_PART_BYTES:  # more than an object may have: the server says so
            return plans
        least *= 2  # what is smaller is gathered into parts of that size


def _parts(sources: Sequence[ObjectInfo], bucket: str | None, least: int) -> Iterator[PartPlan]:
    gathered: list[Slice] = []
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
                    gathered.append(Slice(source, start, missing))
                    start += missing
                if gathered:
                    yield PartPlan(tuple(gathered), copied=False)
                    gathered, size = [], 0
                for begin, length in _ranges(source.size - start, max(_COPY_BYTES, least)):
                    yield PartPlan((Slice(source, start + begin, length),), copied=True)
                break
            length = min(left, gathering - size)
            gathered.append(Slice(source, start, length))
            start += length
            size += length
            if size == gathering:
                yield PartPlan(tuple(gathered), copied=False)
                gathered, size = [], 0
    if gathered:
        yield PartPlan(tuple(gathered), copied=False)


def _ranges(size: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield where equal ranges of ``size`` bytes begin, and their lengths: none has more than ``most`` bytes."""
    count = -(-size // min(most, MOST_PART_BYTES))
    for number in range(count):
        begin = size * number // count
        yield begin, size * (number + 1) // count - begin


class Concatenation:
    """One new object of the bytes of others; to be used once.

    :param publication: where it appears.
    :param version: returns what reads a source.
    """

    def __init__(self, publication: Publication, version: Callable[[ObjectInfo], S3Version]) -> None:
        self._publication = publication
        self._version = version
        self._grace_seconds = publication.s3.timeout_seconds
        self._readers = ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="s3-source")

    def of(self, sources: Sequence[ObjectInfo]) -> ObjectInfo:
        """Publish the object.

        :raises ObjectChanged: a source is not that version any more, or the publication's condition does not hold.
        """
        self._publication.check()
        with self._readers:
            try:
                for _ in self._readers.map(lambda source: self._version(source).check(), _empty(sources)):
                    pass
                try:
                    return self._publish(plan_parts(sources, self._publication.place["Bucket"]))
                except _NoCopies:
                    return self._publish(plan_parts(sources, None))
            except BaseException:
                self._readers.shutdown(wait=False, cancel_futures=True)
                raise

    def _publish(self, plans: Sequence[PartPlan]) -> ObjectInfo:
        if len(plans) == 0 or (len(plans) == 1 and not plans[0].copied):
            with self._gathered(plans[0] if plans else PartPlan((), copied=False)) as part:
                return put(self._publication, part.body(self._grace_seconds))
        with MultipartUpload(self._publication) as upload:

            def make(numbered: tuple[int, PartPlan]) -> None:
                number, plan = numbered
                if plan.copied:
                    self._copy(upload, number, plan.slices[0])
                else:
                    with self._gathered(plan) as part:
                        upload.send(number, part.body(self._grace_seconds))

            in_threads(make, list(enumerate(plans, start=1)))
            return upload.complete(sum(plan.length for plan in plans))

    @contextmanager
    def _gathered(self, plan: PartPlan) -> Iterator[PartBuffer]:
        with PartBuffer(plan.length) as part:
            position = 0
            waiting = []
            for piece in plan.slices:
                version = self._version(piece.source)
                waiting.append(self._readers.submit(version.fetch, piece.start, piece.length, part.put, position))
                position += piece.length
            for future in waiting:
                future.result()
            yield part

    def _copy(self, upload: MultipartUpload, number: int, piece: Slice) -> None:
        version = self._version(piece.source)
        s3 = self._publication.s3
        for attempt in range(s3.max_attempts):
            with s3.errors_explained(piece.source.uri):
                try:
                    upload.copy(number, piece.source, piece.start, piece.length)
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
