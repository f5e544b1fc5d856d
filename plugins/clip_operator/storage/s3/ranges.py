"""Ranges of one version of an object in S3, each tried again by itself, and to where they are wanted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from botocore.exceptions import ClientError

from clip_operator.machine.threads import in_threads
from clip_operator.storage.objects import ObjectInfo, StorageError, changed_while_read
from clip_operator.storage.s3.client import S3Client, split
from clip_operator.storage.s3.errors import is_changed, is_not_found
from clip_operator.storage.s3.parts import THREADS, ByteRange, ranges_of

_CHUNK_BYTES = 1 << 20

Put = Callable[[bytes, int], None]


class _DoubtfulVersion(Exception):
    """The answer names another version than the one that was asked for: the object changed, or a header is garbled."""


@dataclass(frozen=True)
class S3Version:
    """One version of an object, of which ranges are read.

    :param stat: returns the version that stands at a URI now.
    """

    s3: S3Client
    info: ObjectInfo
    stat: Callable[[str], ObjectInfo]

    def check(self) -> None:
        """Make sure that it still stands there.

        :raises ObjectChanged: another one does.
        """
        if self.stat(self.info.uri) != self.info:
            raise changed_while_read(self.info.uri)

    def read(self, start: int, length: int) -> bytes:
        """Return a range of it."""
        data = bytearray(length)

        def put(chunk: bytes, position: int) -> None:
            data[position : position + len(chunk)] = chunk

        self.fetch(start, length, put, 0)
        return bytes(data)

    def fetch(self, start: int, length: int, put: Put, at: int) -> None:
        """Hand a range of it to ``put``, in chunks and with the position of each; what fails is handed over again.

        :param at: the position of the range's first byte.
        :raises ObjectChanged: another version stands there.
        """
        if length == 0:  # no range without bytes can be asked for
            return self.check()
        for _ in range(self.s3.max_attempts):
            try:
                with self.s3.errors_explained(self.info.uri):
                    try:
                        return self.s3.attempt(lambda: self._once(start, length, put, at))
                    except ClientError as error:
                        if not is_changed(error) and not is_not_found(error):
                            raise
            except _DoubtfulVersion:
                pass
            self.check()
        raise StorageError(
            f"{self.info.uri}: {self.s3.endpoint} names another version of it every time; run the task again"
        )

    def fetch_in_parts(self, start: int, length: int, put: Put, at: int) -> None:
        """Do as :meth:`fetch` does, with a large range in parts, a few at a time."""
        if length == 0:
            self.check()

        def fetch(part: ByteRange) -> None:
            self.fetch(start + part.start, part.length, put, at + part.start)

        in_threads(THREADS, fetch, ranges_of(length))

    def _once(self, start: int, length: int, put: Put, at: int) -> None:
        bucket, key = split(self.info.uri)
        answer = self.s3.boto3.get_object(
            Bucket=bucket, Key=key, Range=f"bytes={start}-{start + length - 1}", IfMatch=f'"{self.info.etag}"'
        )
        with closing(answer["Body"]) as body:
            if answer["ETag"].strip('"') != self.info.etag or answer["ContentLength"] != length:
                raise _DoubtfulVersion
            position = at
            while chunk := body.read(_CHUNK_BYTES):
                put(chunk, position)
                position += len(chunk)
