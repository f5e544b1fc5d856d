"""How an object appears in Google Cloud Storage or Azure: whole, under a condition, and known by its version."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import obstore

from clip_operator.storage.cloud.client import ONE_REQUEST_BYTES, PART_BYTES, CloudClient
from clip_operator.storage.cloud.errors import FAILURES, REFUSED, Failure
from clip_operator.storage.objects import ObjectChanged, ObjectInfo, ObjectNotFound, StorageError, Unchanged

# Every upload carries a random token: where an answer got lost, the token tells whose the object is. The name is such
# that Azure takes it.
_METADATA_NAME = "clipoperatorupload"

_PARTS_AT_ONCE = 4
_MOST_PARTS = 10_000  # in Google's store; Azure takes more
_MOST_ROUNDS = 4


class Publication:
    """One object that is to appear at one place.

    A condition is sent along where the object is written in one request, in the words of the store: no object, this
    ETag in Azure, this generation in Google's. These stores know it for larger objects, too, but obstore has no word
    for it: there it is looked up right before the parts become the object.

    :param uri: the place.
    :param key: the same, in the client's bucket.
    :param only_if: what must stand there; None: whatever does is replaced.
    """

    def __init__(self, client: CloudClient, uri: str, key: str, only_if: Unchanged | None) -> None:
        self.uri = uri
        self._client = client
        self._key = key
        self._only_if = only_if
        self._token = secrets.token_hex(16)
        self._attributes = {_METADATA_NAME: self._token}

    def check(self) -> None:
        """Look whether the condition holds now.

        :raises ObjectChanged: it does not.
        """
        if self._only_if is not None:
            self._mode()

    def put(self, data: bytes | bytearray) -> ObjectInfo:
        """Publish an object in one request."""
        store = self._client.writing(len(data))
        for left in reversed(range(_MOST_ROUNDS)):
            mode = self._mode()

            def put(mode: Any = mode) -> Any:
                return obstore.put(store, self._key, data, mode=mode, use_multipart=False, attributes=self._attributes)

            told = self._told(put, again=left > 0)
            if told is not None:
                return self._standing(len(data), told)
        raise StorageError(f"{self.uri} is written by others all the time; run the task again")

    def put_parts(self, parts: Callable[[], Iterator[bytes]], part_bytes: int = PART_BYTES) -> ObjectInfo:
        """Publish an object in parts, which are asked for one after the other.

        :param part_bytes: how large each is, but the last.
        """
        size = 0

        def checked() -> Iterator[bytes]:
            nonlocal size
            for part in parts():
                size += len(part)
                yield part
            # Not in this thread, in which obstore is at work, and would be asked anew.
            with ThreadPoolExecutor(1, thread_name_prefix="clip-condition") as threads:
                threads.submit(self.check).result()

        def put() -> Any:
            return obstore.put(
                self._client.writing(part_bytes),
                self._key,
                checked(),
                use_multipart=True,
                attributes=self._attributes,
                chunk_size=part_bytes,
                max_concurrency=_PARTS_AT_ONCE,
            )

        told = self._told(put, again=False)
        assert told is not None, "no condition was sent along"
        return self._standing(size, told)

    def _told(self, put: Callable[[], Any], *, again: bool) -> str | None:
        """Make the object appear and return its ETag as the store told it; empty where the answer got lost.

        Return None where the condition does not hold any more, or was not answered.

        :param again: there is another try. obstore makes none of a write with a condition whose connection broke.
        """
        with self._client.errors_explained(self.uri, self._key):
            try:
                return str(put()["e_tag"] or "").strip('"')
            except FAILURES as error:
                # Done in spite of it, by this try or by one before it, of which only the answer was lost.
                if self._is_ours():
                    return ""
                if isinstance(error, REFUSED) or (again and Failure.of(error, self._key).is_passing):
                    return None
                raise

    def _mode(self) -> Any:
        """Return the condition in the store's words.

        :raises ObjectChanged: it does not hold.
        """
        if self._only_if is None:
            return "overwrite"
        info, version = None, None
        with suppress(ObjectNotFound):
            info, _, version = self._client.look(self.uri, self._key)
        self._only_if.check(self.uri, info)
        if info is None:
            return "create"
        return {"e_tag": f'"{info.etag}"', **({"version": version} if version is not None else {})}

    def _standing(self, size: int, told: str) -> ObjectInfo:
        """Return the version of the object that was written."""
        try:
            info, attributes, _ = self._client.look(self.uri, self._key)
        except ObjectNotFound:
            raise ObjectChanged(f"{self.uri} is gone: it was deleted right after it was written") from None
        if attributes.get(_METADATA_NAME) != self._token:
            if self._only_if is None and told:  # others are as free to replace ours as we were to replace what was
                return ObjectInfo(self.uri, size, told)
            raise ObjectChanged(f"{self.uri} was replaced by another writer at the same time; run the task again")
        if info.size != size:
            raise StorageError(
                f"{self.uri}: {self._client.endpoint} holds {info.size:,} bytes of the {size:,} uploaded"
            )
        return info

    def _is_ours(self) -> bool:
        try:
            attributes = self._client.look(self.uri, self._key)[1]
        except StorageError:
            return False
        return attributes.get(_METADATA_NAME) == self._token


def part_bytes_of(size: int) -> int:
    """Return how large the parts are of so many bytes, of which these stores take no more than some number."""
    return max(PART_BYTES, -(-size // _MOST_PARTS))


def fits_one_request(size: int) -> bool:
    """Whether so many bytes are written in one request."""
    return size <= ONE_REQUEST_BYTES
