"""Objects in S3 and in what speaks its protocol, through boto3; whole objects are read through obstore, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError

from clip_operator.machine.threads import in_threads
from clip_operator.storage.disk import filling, receiving
from clip_operator.storage.objects import ObjectInfo, ObjectNotFound, Unchanged, too_large
from clip_operator.storage.read_ahead import BUFFER_BYTES, ReadAhead
from clip_operator.storage.s3.access import S3Access
from clip_operator.storage.s3.client import S3Client, split
from clip_operator.storage.s3.concatenate import Concatenation
from clip_operator.storage.s3.draft import S3Draft
from clip_operator.storage.s3.errors import code_of
from clip_operator.storage.s3.publication import Publication
from clip_operator.storage.s3.ranges import S3Version
from clip_operator.storage.s3.upload import put_bytes, put_file
from clip_operator.storage.s3.whole_reads import WholeReads
from clip_operator.storage.uri import canonical, folded
from clip_operator.storage.writing import ObjectWriter

_DELETING_THREADS = 16


class S3Backend:
    """S3 as one kind of storage. Its methods are those of :class:`clip_operator.storage.Storage`."""

    def __init__(self, access: S3Access) -> None:
        self._s3 = S3Client(access)
        self._whole_reads = WholeReads(self._s3)

    def stat(self, uri: str) -> ObjectInfo:
        bucket, key = split(uri)
        head = self._s3.request(uri, lambda: self._s3.boto3.head_object(Bucket=bucket, Key=key))
        return _info(uri, head)

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        return self.read_version(uri, max_bytes)[1]

    def read_version(self, uri: str, max_bytes: int | None = None) -> tuple[ObjectInfo, bytes]:
        return self._whole_reads.read(uri, max_bytes, partial(self._read_by_boto3, uri, max_bytes))

    def _read_by_boto3(self, uri: str, max_bytes: int | None) -> tuple[ObjectInfo, bytes]:
        bucket, key = split(uri)

        def once() -> tuple[ObjectInfo, bytes]:
            answer = self._s3.boto3.get_object(Bucket=bucket, Key=key)
            with closing(answer["Body"]) as body:  # "with body" would give the unguarded stream below it
                size = answer["ContentLength"]
                if max_bytes is not None and size > max_bytes:
                    raise too_large(uri, size, max_bytes)
                return _info(uri, {"ETag": "", **answer}), bytes(body.read())

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

    def open(self, info: ObjectInfo) -> BinaryIO:
        version = self._version(info)
        if info.size == 0:  # nothing will be asked for that tells
            version.check()
        return BufferedReader(ReadAhead(info, version.read), BUFFER_BYTES)

    def download(self, info: ObjectInfo, path: Path) -> None:
        with receiving(path), filling(path, anew=True) as put:
            self._version(info).fetch_in_parts(0, info.size, put, 0)

    def download_range(self, info: ObjectInfo, start: int, length: int, path: Path, at: int) -> None:
        with filling(path) as put:
            self._version(info).fetch_in_parts(start, length, put, at)

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        return put_file(self._publication(uri, only_if), path)

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        return put_bytes(self._publication(uri, only_if), data)

    def create(self, uri: str, only_if: Unchanged | None = None) -> ObjectWriter:
        return ObjectWriter(S3Draft(self._publication(uri, only_if)))

    def concatenate(self, sources: Sequence[ObjectInfo], uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        return Concatenation(self._publication(uri, only_if), self._version).of(sources)

    def unfinished_uploads(self, uri: str) -> list[str]:
        upload_ids = self._unfinished_uploads(uri)
        if not upload_ids and (stored := folded(uri)) != canonical(uri):
            upload_ids = [upload_id for upload_id in self._unfinished_uploads(stored) if self._is_known(uri, upload_id)]
        return upload_ids

    def _unfinished_uploads(self, uri: str) -> list[str]:
        bucket, key = split(uri)

        def once() -> list[str]:
            pages = self._s3.boto3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
            return [found["UploadId"] for page in pages for found in page.get("Uploads", []) if found["Key"] == key]

        return self._s3.request(uri, once)

    def _is_known(self, uri: str, upload_id: str) -> bool:
        """Tell whether the store knows the upload by this URI."""
        bucket, key = split(uri)
        with suppress(ObjectNotFound):
            self._s3.request(
                uri, partial(self._s3.boto3.list_parts, Bucket=bucket, Key=key, UploadId=upload_id, MaxParts=1)
            )
            return True
        return False

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
        in_threads(_DELETING_THREADS, lambda info: self.delete(info.uri), self.list(uri))

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        found = False
        for info in self._listed(prefix, start_after):
            if info.uri.startswith(prefix):
                found = True
                yield info
        if not found and folded(prefix) != canonical(prefix):
            yield from self._listed_folded(prefix, start_after)

    def _listed_folded(self, prefix: str, start_after: str | None) -> Iterator[ObjectInfo]:
        """Yield the objects that stand below fewer slashes, where the store finds them below all of these, too.

        Such a store writes and reads an object under either name, and lists it under one.
        """
        stored = folded(prefix)
        for info in self._listed(stored, None if start_after is None else folded(start_after)):
            named = replace(info, uri=prefix + info.uri.removeprefix(stored))
            try:
                self.stat(named.uri)
            except ObjectNotFound:  # to this store these are two names, and whatever stands there is another's
                return
            yield named

    def _listed(self, prefix: str, start_after: str | None) -> Iterator[ObjectInfo]:
        after = {} if start_after is None else {"StartAfter": split(start_after)[1]}
        for page in self._pages(prefix, after):
            for item in page.get("Contents", []):
                etag = item["ETag"].strip('"')
                yield ObjectInfo(_uri(prefix, item["Key"]), item["Size"], etag, item.get("LastModified"))

    def list_level(self, prefix: str) -> Iterator[str]:
        names = self._level(prefix)
        first = next(names, None)
        if first is not None:
            yield first
            yield from names
        elif folded(prefix) != canonical(prefix) and next(self._listed_folded(prefix, None), None) is not None:
            yield from (prefix + name.removeprefix(folded(prefix)) for name in self._level(folded(prefix)))

    def _level(self, prefix: str) -> Iterator[str]:
        for page in self._pages(prefix, {"Delimiter": "/"}):
            keys = [item["Key"] for item in page.get("Contents", [])]
            folders = [item["Prefix"] for item in page.get("CommonPrefixes", [])]
            found = [_uri(prefix, key) for key in keys + folders]
            yield from (uri for uri in found if uri != prefix)  # SeaweedFS names the folder itself, if slashes are many

    def _pages(self, prefix: str, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing as they are asked for.

        :param options: of the request for the first page; of them ``Delimiter`` is the others', too.
        """
        bucket, key = split(prefix)
        listed = partial(self._s3.boto3.list_objects_v2, Bucket=bucket, Prefix=key)
        page: dict[str, Any] = self._s3.request(prefix, partial(listed, **options))
        yield page
        while page.get("IsTruncated"):
            following = {**options, "ContinuationToken": page["NextContinuationToken"]}
            following.pop("StartAfter", None)
            page = self._s3.request(prefix, partial(listed, **following))
            yield page

    def canonical(self, uri: str) -> str:
        return folded(uri)

    def _version(self, info: ObjectInfo) -> S3Version:
        return S3Version(self._s3, info, self._settled)

    def _publication(self, uri: str, only_if: Unchanged | None) -> Publication:
        return Publication(self._s3, uri, only_if, self._settled)

    def _settled(self, uri: str) -> ObjectInfo:
        """Return the object's version, when two answers agree on it: one alone may be garbled on the way."""
        last = self.stat(uri)
        for _ in range(self._s3.max_attempts):
            info = self.stat(uri)
            if info == last:
                break
            last = info
        return last


def _uri(prefix: str, key: str) -> str:
    """Return the URI of a key in the bucket that a URI names, with the scheme that it was written with."""
    return f"{prefix.partition('://')[0]}://{split(prefix)[0]}/{key}"


def _info(uri: str, answer: dict[str, Any]) -> ObjectInfo:
    """Return the version that the headers of a HEAD's or a GET's answer name."""
    return ObjectInfo(uri, answer["ContentLength"], answer["ETag"].strip('"'), answer.get("LastModified"))
