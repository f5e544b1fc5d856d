"""A file or bytes to one place in S3: in one request, or a large file in parts."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

from clip_operator.machine.threads import in_threads
from clip_operator.storage.objects import ObjectInfo, StorageError
from clip_operator.storage.s3.multipart import MultipartUpload
from clip_operator.storage.s3.pace import PacedBody
from clip_operator.storage.s3.parts import PART_BYTES, THREADS, ByteRange, ranges_of
from clip_operator.storage.s3.publication import Publication


def put(publication: Publication, body: PacedBody) -> ObjectInfo:
    """Publish an object in one request."""

    def once(condition: dict[str, str]) -> str:
        body.seek(0)  # an earlier try may have read it
        answer = publication.s3.boto3.put_object(**publication.place, **condition, **publication.metadata, Body=body)
        return str(answer["ETag"])

    return publication.of(once, body.length)


def put_bytes(publication: Publication, data: bytes) -> ObjectInfo:
    """Publish ``data``, if the publication's condition holds."""
    return put(publication, PacedBody(BytesIO(data), 0, len(data), publication.s3.timeout_seconds))


def put_file(publication: Publication, path: Path) -> ObjectInfo:
    """Publish a file, if the publication's condition holds; a large one in parts, which are never in memory."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= PART_BYTES:
                return put(publication, PacedBody(file, 0, size, publication.s3.timeout_seconds))
            return _in_parts(publication, path, size)
    except OSError as error:
        raise StorageError(f"cannot read {path} for {publication.uri}: {error.strerror or error}") from None


def _in_parts(publication: Publication, path: Path, size: int) -> ObjectInfo:
    publication.check()  # before all of it is sent
    with MultipartUpload(publication) as upload:

        def send(numbered: tuple[int, ByteRange]) -> None:
            number, part = numbered
            with path.open("rb") as file:
                upload.send(number, PacedBody(file, part.start, part.length, publication.s3.timeout_seconds))

        in_threads(THREADS, send, enumerate(ranges_of(size), start=1))
        return upload.complete(size)
