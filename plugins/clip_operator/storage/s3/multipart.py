"""A multipart upload: parts that are sent or copied in any order, and then become one object or none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from clip_operator.storage.objects import ObjectInfo
from clip_operator.storage.s3.client import split
from clip_operator.storage.s3.errors import code_of
from clip_operator.storage.s3.pace import PacedBody
from clip_operator.storage.s3.publication import Publication


class MultipartUpload:
    """One multipart upload, begun when it is made; as a context manager it is aborted if it is not completed.

    Its methods for parts may be called by several threads at the same time.

    :param publication: the object that its parts become.
    """

    def __init__(self, publication: Publication) -> None:
        self._publication = publication
        self._s3 = publication.s3
        begin: dict[str, Any] = {**publication.place, **publication.metadata}
        if self._s3.sends_checksums:  # the checksum that boto3 will add to every part
            begin["ChecksumAlgorithm"] = "CRC32"
        created = self._s3.request(publication.uri, lambda: self._s3.boto3.create_multipart_upload(**begin))
        self._upload = {**publication.place, "UploadId": created["UploadId"]}
        self._parts: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:  # also a signal: parts that nobody completes are paid for, and seen by nobody
            self.abort()

    def send(self, number: int, body: PacedBody) -> None:
        """Send a part; ``number`` is counted from 1."""

        def once() -> dict[str, Any]:
            body.seek(0)  # an earlier try may have read it
            sent: dict[str, Any] = self._s3.boto3.upload_part(**self._upload, PartNumber=number, Body=body)
            return sent

        self._keep(number, self._s3.request(self._publication.uri, once))

    def copy(self, number: int, source: ObjectInfo, start: int, length: int) -> None:
        """Have the server copy a range of another object in the same store, if that is still this version.

        :raises ClientError: it is not, or the server does not do such a thing.
        """
        bucket, key = split(source.uri)
        copying = partial(
            self._s3.boto3.upload_part_copy,
            **self._upload,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": key},
            CopySourceRange=f"bytes={start}-{start + length - 1}",
            CopySourceIfMatch=f'"{source.etag}"',
        )
        self._keep(number, self._s3.attempt(copying)["CopyPartResult"])

    def complete(self, size: int) -> ObjectInfo:
        """Make the object of ``size`` bytes appear; return its version."""
        parts = [self._parts[number] for number in sorted(self._parts)]

        def complete(condition: dict[str, str]) -> str:
            completed: Callable[..., Any]
            completed = partial(self._s3.boto3.complete_multipart_upload, **self._upload, **condition)
            try:
                answer = completed(MultipartUpload={"Parts": parts})
            except ClientError as error:
                if code_of(error) != "InvalidPart":
                    raise
                # An ETag of a part may have been garbled on the way. The parts were whole: their lengths and
                # checksums were sent along with them.
                answer = completed(MultipartUpload={"Parts": self._with_etags_asked_again(parts)})
            return str(answer["ETag"])

        return self._publication.of(complete, size)

    def abort(self) -> None:
        """Drop the parts."""
        with suppress(BotoCoreError, ClientError):
            self._s3.attempt(lambda: self._s3.boto3.abort_multipart_upload(**self._upload))

    def _keep(self, number: int, answer: dict[str, Any]) -> None:
        known = {name: answer[name] for name in answer.keys() & {"ETag", "ChecksumCRC32"}}
        self._parts[number] = {"PartNumber": number, **known}

    def _with_etags_asked_again(self, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        pages = self._s3.boto3.get_paginator("list_parts").paginate(**self._upload)
        etags = {part["PartNumber"]: part["ETag"] for page in pages for part in page["Parts"]}
        return [{**part, "ETag": etags.get(part["PartNumber"], part["ETag"])} for part in parts]
