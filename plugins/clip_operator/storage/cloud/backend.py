"""Objects in Google Cloud Storage and Azure, with conditional writes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeVar

import obstore

from clip_operator.machine.threads import in_threads
from clip_operator.storage.cloud.access import CloudAccess
from clip_operator.storage.cloud.azure import account_of
from clip_operator.storage.cloud.client import PART_BYTES, RANGE_BYTES, CloudClient, info_of
from clip_operator.storage.cloud.draft import CloudDraft
from clip_operator.storage.cloud.listing import Listing
from clip_operator.storage.cloud.names import Bucket, bucket_of, split, split_prefix, uri_of
from clip_operator.storage.cloud.publication import Publication, fits_one_request, part_bytes_of
from clip_operator.storage.cloud.versions import CloudVersion
from clip_operator.storage.disk import filling, receiving
from clip_operator.storage.objects import (
    CredentialsError,
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    Unchanged,
    changed_while_read,
)
from clip_operator.storage.read_ahead import BUFFER_BYTES, ReadAhead
from clip_operator.storage.streaming import copy_all
from clip_operator.storage.uri import folded
from clip_operator.storage.writing import ObjectWriter

T = TypeVar("T")

_DELETING_THREADS = 16
_MOST_ROUNDS = 8


class CloudBackend:
    """Google Cloud Storage and Azure as one kind of storage: a client for each bucket.

    Its methods are those of :class:`clip_operator.storage.Storage`. obstore tells of no unfinished uploads: what is
    left of those that were cut off, Azure removes after a week, and Google's store by a rule of the bucket's lifecycle.
    """

    def __init__(self, access: CloudAccess) -> None:
        self._access = access
        self._clients: dict[Bucket, CloudClient] = {}
        self._lock = threading.Lock()

    def stat(self, uri: str) -> ObjectInfo:
        client, key = self._split(uri)
        return client.stat(uri, key)

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        return self.read_version(uri, max_bytes)[1]

    def read_version(self, uri: str, max_bytes: int | None = None) -> tuple[ObjectInfo, bytes]:
        client, key = self._split(uri)

        def once() -> tuple[ObjectInfo, bytes]:
            # How large it is, the first answer tells; most objects are in it as a whole.
            found = client.get(uri, key, 0, RANGE_BYTES if max_bytes is None else min(RANGE_BYTES, max_bytes + 1))
            info, data = found or (client.stat(uri, key), b"")
            if max_bytes is not None and info.size > max_bytes:
                raise ObjectTooLarge(f"{uri} has {info.size:,} bytes, more than the {max_bytes:,} accepted")
            if len(data) < info.size:
                data += CloudVersion(client, key, info).read(len(data), info.size - len(data))
            return info, data

        return _until_it_stays(uri, once)

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        client, key = self._split(uri)

        def once() -> bytes:
            info = client.stat(uri, key)
            first = max(0, info.size + start) if start < 0 else start
            count = min(length, info.size - first)
            return CloudVersion(client, key, info).read(first, count) if count > 0 else b""

        return _until_it_stays(uri, once)

    def open(self, info: ObjectInfo) -> BinaryIO:
        version = self._version(info)
        if info.size == 0:  # nothing will be asked for that tells
            version.check()
        return BufferedReader(ReadAhead(info, version.read), BUFFER_BYTES)

    def download(self, info: ObjectInfo, path: Path) -> None:
        with receiving(path), filling(path, anew=True) as put:
            self._version(info).fetch(0, info.size, put, 0)

    def download_range(self, info: ObjectInfo, start: int, length: int, path: Path, at: int) -> None:
        with filling(path) as put:
            self._version(info).fetch(start, length, put, at)

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        publication = self._publication(uri, only_if)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if fits_one_request(size):
                    return publication.put(file.read())
                publication.check()  # before all of it is sent
                length = part_bytes_of(size)
                return publication.put_parts(lambda: iter(lambda: file.read(length), b""), length)
        except OSError as error:
            raise StorageError(f"cannot read {path} for {uri}: {error.strerror or error}") from None

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        publication = self._publication(uri, only_if)
        if fits_one_request(len(data)):
            return publication.put(data)
        publication.check()
        return publication.put_parts(lambda: (data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)))

    def create(self, uri: str, only_if: Unchanged | None = None) -> ObjectWriter:
        return ObjectWriter(CloudDraft(self._publication(uri, only_if)))

    def concatenate(self, sources: Sequence[ObjectInfo], uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        with self.create(uri, only_if) as out:
            copy_all(sources, self.open, out)
        return out.info

    def unfinished_uploads(self, _uri: str) -> list[str]:
        return []

    def discard_unfinished_uploads(self, _uri: str) -> int:
        return 0

    def delete(self, uri: str) -> None:
        client, key = self._split(uri)
        with suppress(ObjectNotFound):
            client.request(uri, key, lambda: obstore.delete(client.reading, key))

    def delete_folder(self, uri: str) -> None:
        in_threads(_DELETING_THREADS, lambda info: self.delete(info.uri), self.list(uri))

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        bucket, folder, start = split_prefix(prefix)
        client = self._client(bucket)
        after = max(start[:-1], "" if start_after is None else _key(start_after))
        for meta in Listing(client, prefix, folder, after):
            if client.bucket.scheme == "gs" and meta["path"] > start and not meta["path"].startswith(start):
                return  # Google's store lists in order
            uri = uri_of(prefix, meta["path"])
            if uri.startswith(prefix) and (start_after is None or meta["path"] > _key(start_after)):
                info = info_of(uri, meta)
                if info.size or self._is_object(client, info):
                    yield info

    def _is_object(self, client: CloudClient, info: ObjectInfo) -> bool:
        """Whether there is such an object: obstore lists one whose key ends with a slash as if it did not.

        Such objects, which are empty, stand for folders.
        """
        try:
            return client.stat(info.uri, _key(info.uri)) == info
        except ObjectNotFound:
            return False

    def list_level(self, prefix: str) -> Iterator[str]:
        bucket, folder, _ = split_prefix(prefix)
        client = self._client(bucket)
        level = client.request_whole(prefix, lambda: obstore.list_with_delimiter(client.reading, folder or None))
        infos = [info_of(uri_of(prefix, meta["path"]), meta) for meta in level["objects"]]
        uris = [info.uri for info in infos if info.size or self._is_object(client, info)]
        folders = [uri_of(prefix, f"{name}/") for name in level["common_prefixes"]]
        yield from (uri for uri in (*uris, *folders) if uri.startswith(prefix))

    def canonical(self, uri: str) -> str:
        bucket = bucket_of(uri)
        host = bucket.name
        if bucket.scheme == "az":
            with suppress(CredentialsError):  # whoever reads or writes there will be told
                host = f"{bucket.name}@{account_of(bucket, os.environ)}"
        return folded(f"{bucket.scheme}://{host}/{_key(uri)}")

    def _split(self, uri: str) -> tuple[CloudClient, str]:
        bucket, key = split(uri)
        return self._client(bucket), key

    def _client(self, bucket: Bucket) -> CloudClient:
        with self._lock:
            if bucket not in self._clients:
                self._clients[bucket] = CloudClient(bucket, self._access)
            return self._clients[bucket]

    def _version(self, info: ObjectInfo) -> CloudVersion:
        client, key = self._split(info.uri)
        return CloudVersion(client, key, info)

    def _publication(self, uri: str, only_if: Unchanged | None) -> Publication:
        client, key = self._split(uri)
        return Publication(client, uri, key, only_if)


def _until_it_stays(uri: str, read: Callable[[], T]) -> T:
    """Return what ``read`` does, once no other version comes while it reads."""
    for _ in range(_MOST_ROUNDS):
        with suppress(ObjectChanged):
            return read()
    raise changed_while_read(uri)


def _key(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[2]
