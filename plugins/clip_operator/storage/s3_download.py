"""One version of a large object to a file: ranges of it, a few at a time, each tried again by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from botocore.exceptions import ClientError

from clip_operator.storage.backend import ObjectInfo, StorageError, changed_while_read
from clip_operator.storage.disk import receiving
from clip_operator.storage.s3_client import S3Client, split
from clip_operator.storage.s3_errors import is_changed, is_not_found
from clip_operator.storage.s3_parts import Part, in_threads, parts_of

_CHUNK_BYTES = 1 << 20


class _DoubtfulVersion(Exception):
    """The answer names another version than the one that was asked for: the object changed, or a header is garbled."""


def download(s3: S3Client, info: ObjectInfo, path: Path, look: Callable[[], ObjectInfo]) -> None:
    """Copy exactly the version ``info`` to ``path``; leave no file behind if that fails.

    :param look: returns the version that stands there now.
    :raises ObjectChanged: it is another one than ``info``.
    """
    try:
        with receiving(path), path.open("wb", buffering=0) as out:
            if info.size == 0 and look() != info:  # no range of an empty object can be asked for
                raise changed_while_read(info.uri)
            in_threads(lambda part: _fetch(s3, info, part, out.fileno(), look), parts_of(info.size))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None


def _fetch(s3: S3Client, info: ObjectInfo, part: Part, out: int, look: Callable[[], ObjectInfo]) -> None:
    bucket, key = split(info.uri)

    def once() -> None:
        answer = s3.boto3.get_object(
            Bucket=bucket, Key=key, Range=f"bytes={part.start}-{part.start + part.length - 1}", IfMatch=f'"{info.etag}"'
        )
        with closing(answer["Body"]) as body:
            if answer["ETag"].strip('"') != info.etag or answer["ContentLength"] != part.length:
                raise _DoubtfulVersion
            position = part.start
            while chunk := body.read(_CHUNK_BYTES):
                os.pwrite(out, chunk, position)
                position += len(chunk)

    for _ in range(s3.max_attempts):
        try:
            with s3.in_words(info.uri):
                try:
                    return s3.attempt(once)
                except ClientError as error:
                    if not is_changed(error) and not is_not_found(error):
                        raise
        except _DoubtfulVersion:
            pass
        if look() != info:
            raise changed_while_read(info.uri)
    raise StorageError(f"{info.uri}: {s3.endpoint} names another version of it every time; run the task again")
