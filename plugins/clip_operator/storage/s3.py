"""Objects in S3 and in what speaks its protocol, through boto3."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from clip_operator.storage.backend import ObjectInfo, ObjectNotFound, ObjectTooLarge, Unchanged
from clip_operator.storage.s3_client import S3Client, split
from clip_operator.storage.s3_download import download
from clip_operator.storage.s3_errors import code_of
from clip_operator.storage.s3_upload import Upload

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config

_DELETING_THREADS = 16


class S3Backend:
    """S3 as one kind of storage. The parameters are those of :class:`clip_operator.storage.S3Access`."""

    def __init__(
        self,
        session: boto3.session.Session | None,
        endpoint_url: str | None,
        verify: bool | str | None,
        timeout_seconds: float,
        config: Config | None,
    ) -> None:
        self._s3 = S3Client(session, endpoint_url, verify, timeout_seconds, config)

    def stat(self, uri: str) -> ObjectInfo:
        bucket, key = split(uri)
        head = self._s3.request(uri, lambda: self._s3.boto3.head_object(Bucket=bucket, Key=key))
        return ObjectInfo(uri=uri, size=head["ContentLength"], etag=head["ETag"].strip('"'))

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        bucket, key = split(uri)

        def once() -> bytes:
            answer = self._s3.boto3.get_object(Bucket=bucket, Key=key)
            with closing(answer["Body"]) as body:  # "with body" would give the unguarded stream below it
                size = answer["ContentLength"]
                if max_bytes is not None and size > max_bytes:
                    raise ObjectTooLarge(f"{uri} has {size:,} bytes, more than the {max_bytes:,} accepted")
                return bytes(body.read())

        return self._s3.request(uri, once)

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        bucket, key = split(uri)
        if length <= 0:
            return b""
        wanted = f"bytes={start}" if start < 0 else f"bytes={start}-{start + length - 1}"

        def once() -> bytes:
            try:
                answer = self._s3.boto3.get_object(Bucket=bucket, Key=key, Range=wanted)
            except ClientError as error:
                if code_of(error) == "InvalidRange":  # it begins past the object's end
                    return b""
                raise
            with closing(answer["Body"]) as body:
                return bytes(body.read())[:length]

        return self._s3.request(uri, once)

    def download(self, info: ObjectInfo, path: Path) -> None:
        download(self._s3, info, path, lambda: self._settled(info.uri))

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        return self._upload(uri, only_if).of_file(path)

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        return self._upload(uri, only_if).of_bytes(data)

    def unfinished_uploads(self, uri: str) -> list[str]:
        bucket, key = split(uri)

        def once() -> list[str]:
            pages = self._s3.boto3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
            return [found["UploadId"] for page in pages for found in page.get("Uploads", []) if found["Key"] == key]

        return self._s3.request(uri, once)

    def discard_unfinished_uploads(self, uri: str) -> int:
        bucket, key = split(uri)
        unfinished = self.unfinished_uploads(uri)
        for upload_id in unfinished:
            with suppress(ObjectNotFound):  # another was faster
                self._s3.request(
                    uri,
                    partial(self._s3.boto3.abort_multipart_upload, Bucket=bucket, Key=key, UploadId=upload_id),
                )
        return len(unfinished)

    def delete(self, uri: str) -> None:
        bucket, key = split(uri)
        with suppress(ObjectNotFound):  # S3 itself makes no difference, some stores do
            self._s3.request(uri, lambda: self._s3.boto3.delete_object(Bucket=bucket, Key=key))

    def delete_folder(self, uri: str) -> None:
        # One request each: a request for many needs a checksum that some stores do not know.
        with ThreadPoolExecutor(_DELETING_THREADS, thread_name_prefix="clip-delete") as threads:
            for _ in threads.map(lambda info: self.delete(info.uri), self.list(uri)):
                pass

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        bucket, key = split(prefix)
        scheme = prefix.partition("://")[0]
        page: dict[str, Any] = {}
        while not page or page.get("IsTruncated"):
            following = {"ContinuationToken": page["NextContinuationToken"]} if page else {}
            page = self._s3.request(
                prefix, partial(self._s3.boto3.list_objects_v2, Bucket=bucket, Prefix=key, **following)
            )
            for item in page.get("Contents", []):
                uri = f"{scheme}://{bucket}/{item['Key']}"
                yield ObjectInfo(uri=uri, size=item["Size"], etag=item["ETag"].strip('"'))

    def _upload(self, uri: str, only_if: Unchanged | None) -> Upload:
        return Upload(self._s3, uri, only_if, lambda: self._found(uri))

    def _found(self, uri: str) -> ObjectInfo | None:
        try:
            return self._settled(uri)
        except ObjectNotFound:
            return None

    def _settled(self, uri: str) -> ObjectInfo:
        """Return the object's version, when two answers agree on it: one alone may be garbled on the way."""
        last = self.stat(uri)
        for _ in range(self._s3.max_attempts):
            info = self.stat(uri)
            if info == last:
                break
            last = info
        return last
