"""A file or bytes to one place in S3: whole, under a condition, and known afterwards by the right ETag."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from clip_operator.storage.backend import ObjectChanged, ObjectInfo, StorageError, Unchanged
from clip_operator.storage.s3_client import S3Client, split
from clip_operator.storage.s3_errors import code_of, is_changed, is_not_found, is_not_known
from clip_operator.storage.s3_pace import PacedSlice
from clip_operator.storage.s3_parts import PART_BYTES, Part, in_threads, parts_of

# Every upload carries a random token: where an answer got lost, the token tells whose the object is.
_METADATA_NAME = "clip-operator-upload"

Publish = Callable[[dict[str, str]], str]


class Upload:
    """One upload.

    A precondition is looked up first, which is cheap, and sent along with the request that makes the object appear. A
    store that does not know conditional writes refuses them, or ignores them in silence: there the first look, and the
    one after the upload, are all there is, and of two writers at the same time the later one wins.

    :param uri: the place.
    :param only_if: what must stand there; None: whatever does is replaced.
    :param look: returns what stands at the place, or None.
    """

    def __init__(
        self, s3: S3Client, uri: str, only_if: Unchanged | None, look: Callable[[], ObjectInfo | None]
    ) -> None:
        self._s3 = s3
        self._uri = uri
        self._place = dict(zip(("Bucket", "Key"), split(uri), strict=True))
        self._only_if = only_if
        self._look = look
        self._token = secrets.token_hex(16)
        self._metadata = {"Metadata": {_METADATA_NAME: self._token}}

    def of_bytes(self, data: bytes) -> ObjectInfo:
        """Put ``data`` there, in one request."""
        self._check()
        body = PacedSlice(BytesIO(data), 0, len(data), self._s3.timeout_seconds)
        return self._published(self._put(body), len(data))

    def of_file(self, path: Path) -> ObjectInfo:
        """Put a file there; a large one in parts, which are not in memory at any time."""
        self._check()
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size <= PART_BYTES:
                    body = PacedSlice(file, 0, size, self._s3.timeout_seconds)
                    return self._published(self._put(body), size)
                return self._in_parts(path, size)
        except OSError as error:
            raise StorageError(f"cannot read {path} for {self._uri}: {error.strerror or error}") from None

    def _put(self, body: PacedSlice) -> Publish:
        def put(condition: dict[str, str]) -> str:
            body.seek(0)  # an earlier try may have read it
            answer = self._s3.boto3.put_object(**self._place, **condition, **self._metadata, Body=body)
            return str(answer["ETag"])

        return put

    def _in_parts(self, path: Path, size: int) -> ObjectInfo:
        begin: dict[str, Any] = {**self._place, **self._metadata}
        if self._s3.sends_checksums:  # the checksum that boto3 will add to every part
            begin["ChecksumAlgorithm"] = "CRC32"
        created = self._s3.request(self._uri, lambda: self._s3.boto3.create_multipart_upload(**begin))
        upload = {**self._place, "UploadId": created["UploadId"]}

        def send(part: Part) -> dict[str, Any]:
            with path.open("rb") as file:
                body = PacedSlice(file, part.start, part.length, self._s3.timeout_seconds)

                def once() -> dict[str, Any]:
                    body.seek(0)
                    sent: dict[str, Any] = self._s3.boto3.upload_part(**upload, PartNumber=part.number, Body=body)
                    return sent

                answer = self._s3.request(self._uri, once)
            known = {name: answer[name] for name in answer.keys() & {"ETag", "ChecksumCRC32"}}
            return {"PartNumber": part.number, **known}

        try:
            parts = in_threads(send, parts_of(size))

            def complete(condition: dict[str, str]) -> str:
                completed = partial(self._s3.boto3.complete_multipart_upload, **upload, **condition)
                try:
                    answer = completed(MultipartUpload={"Parts": parts})
                except ClientError as error:
                    if code_of(error) != "InvalidPart":
                        raise
                    # An ETag of a part may have been garbled on the way. The parts were whole: their lengths and
                    # checksums were sent along with them.
                    answer = completed(MultipartUpload={"Parts": self._with_etags_asked_again(parts, upload)})
                return str(answer["ETag"])

            return self._published(complete, size)
        except BaseException:  # also a signal: parts that nobody completes are paid for, and seen by nobody
            with suppress(BotoCoreError, ClientError):
                self._s3.attempt(lambda: self._s3.boto3.abort_multipart_upload(**upload))
            raise

    def _with_etags_asked_again(self, parts: list[dict[str, Any]], upload: dict[str, Any]) -> list[dict[str, Any]]:
        pages = self._s3.boto3.get_paginator("list_parts").paginate(**upload)
        etags = {part["PartNumber"]: part["ETag"] for page in pages for part in page["Parts"]}
        return [{**part, "ETag": etags.get(part["PartNumber"], part["ETag"])} for part in parts]

    def _check(self) -> None:
        if self._only_if is not None:
            self._only_if.check(self._uri, self._look())

    def _published(self, publish: Publish, size: int) -> ObjectInfo:
        """Make the object appear, if its condition holds, and return the version that then stands there."""
        condition = {}
        if self._only_if is not None:
            expected = self._only_if.expected
            condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": f'"{expected.etag}"'}
        with self._s3.in_words(self._uri):
            try:
                return self._confirmed(self._s3.attempt(lambda: publish(condition)), size)
            except ClientError as error:
                if condition and is_not_known(error):
                    self._check()
                    return self._confirmed(self._s3.attempt(lambda: publish({})), size)
                # A try before this one may have done it, and only its answer was lost.
                lost = is_changed(error) or is_not_found(error) or code_of(error) == "NoSuchUpload"
                if not lost or not self._is_ours(found := self._head()):
                    if is_changed(error) or (condition and is_not_found(error)):
                        self._check()
                        raise ObjectChanged(
                            f"{self._uri} was changed in the meantime, and is left as it is; run the task again"
                        ) from None
                    raise
                return self._confirmed(found["ETag"], size)

    def _confirmed(self, told: str, size: int) -> ObjectInfo:
        """Return the object's version, when two answers agree on its ETag: one alone may be garbled on the way.

        Where the store keeps no metadata, the ETag alone tells whose the object is.
        """
        etag = told
        for _ in range(self._s3.max_attempts):
            head = self._s3.request(self._uri, lambda: self._s3.boto3.head_object(**self._place))
            if not self._is_ours(head) and not (head["ETag"] == told and _METADATA_NAME not in head["Metadata"]):
                if self._only_if is None:  # another writer was as free to replace ours as we were to replace what was
                    return ObjectInfo(self._uri, size, etag.strip('"'))
                raise ObjectChanged(f"{self._uri} was replaced by another writer at the same time; run the task again")
            if head["ContentLength"] != size:
                raise StorageError(
                    f"{self._uri}: {self._s3.endpoint} holds {head['ContentLength']:,} bytes of the {size:,} uploaded"
                )
            if head["ETag"] == etag:
                return ObjectInfo(self._uri, size, etag.strip('"'))
            etag = head["ETag"]
        raise StorageError(f"{self._uri}: {self._s3.endpoint} names another ETag of it every time; run the task again")

    def _head(self) -> dict[str, Any]:
        """Return the object's HEAD, or an empty one where there is no object."""
        try:
            head: dict[str, Any] = self._s3.attempt(lambda: self._s3.boto3.head_object(**self._place))
        except ClientError as error:
            if is_not_found(error):
                return {"Metadata": {_METADATA_NAME: ""}}
            raise
        return head

    def _is_ours(self, head: dict[str, Any]) -> bool:
        return bool(head["Metadata"].get(_METADATA_NAME) == self._token)
