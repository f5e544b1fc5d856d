"""How an object appears in S3: whole, under a condition, and known afterwards by the right ETag."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from clip_operator.storage.objects import ObjectChanged, ObjectInfo, StorageError, Unchanged, find
from clip_operator.storage.s3.client import S3Client, split
from clip_operator.storage.s3.conditions import headers
from clip_operator.storage.s3.errors import code_of, is_changed, is_not_found, is_not_known

# Every upload carries a random token: where an answer got lost, the token tells whose the object is.
_METADATA_NAME = "clip-operator-upload"

Publish = Callable[[dict[str, str]], str]


class _Refused(Exception):
    """The store says that the condition does not hold, or that it does not know such a thing."""


class Publication:
    """One object that is to appear at one place.

    A precondition is looked up first, which is cheap, and sent along with the request that makes the object appear, in
    the form to which the store keeps (see :class:`Conditions`). Some stores keep to none, and say so or ignore it in
    silence: there the look right before, and the one after, are all there is, and of two writers at the same moment the
    later one wins.

    :param uri: the place.
    :param only_if: what must stand there; None: whatever does is replaced.
    :param stat: returns what stands at a URI.
    """

    def __init__(self, s3: S3Client, uri: str, only_if: Unchanged | None, stat: Callable[[str], ObjectInfo]) -> None:
        self.s3 = s3
        self.uri = uri
        self.place = dict(zip(("Bucket", "Key"), split(uri), strict=True))
        self._only_if = only_if
        self._stat = stat
        self._token = secrets.token_hex(16)
        self.metadata = {"Metadata": {_METADATA_NAME: self._token}}

    def check(self) -> None:
        """Look whether the condition holds now.

        :raises ObjectChanged: it does not.
        """
        if self._only_if is not None:
            self._only_if.check(self.uri, find(self.uri, self._stat))

    def of(self, publish: Publish, size: int) -> ObjectInfo:
        """Make the object appear, if its condition holds, and return the version that then stands there."""
        with self.s3.errors_explained(self.uri):
            return self._confirmed(self._published(publish), size)

    def _published(self, publish: Publish) -> str:
        """Make the object appear, if its condition holds, and return its ETag."""
        if self._only_if is None:
            return self._try(publish, {})
        expected = self._only_if.expected
        for way in self.s3.conditions.ways(expected):
            self.check()
            try:
                etag = self._try(publish, headers(expected, way))
            except _Refused:
                continue
            self.s3.conditions.learn(expected, way)
            return etag
        raise AssertionError("the last way says no condition, which cannot be refused")

    def _try(self, publish: Publish, condition: dict[str, str]) -> str:
        """Make the object appear and return its ETag.

        :raises _Refused: the store has not done it because of the condition.
        """
        try:
            return self.s3.attempt(partial(publish, condition))
        except ClientError as error:
            refused = is_changed(error) or is_not_found(error)
            # A try before this one may have done it, and only its answer was lost.
            if (refused or code_of(error) == "NoSuchUpload") and self._is_ours(found := self._head()):
                return str(found["ETag"])
            if condition and (refused or is_not_known(error)):
                raise _Refused from None
            raise

    def _confirmed(self, told: str, size: int) -> ObjectInfo:
        """Return the object's version, when two answers agree on its ETag: one alone may be garbled on the way.

        Where the store keeps no metadata, the ETag alone tells whose the object is.
        """
        etag = told
        for _ in range(self.s3.max_attempts):
            head = self.s3.request(self.uri, lambda: self.s3.boto3.head_object(**self.place))
            if not self._is_ours(head) and not (head["ETag"] == told and _METADATA_NAME not in head["Metadata"]):
                if self._only_if is None:  # another writer was as free to replace ours as we were to replace what was
                    return ObjectInfo(self.uri, size, etag.strip('"'))
                raise ObjectChanged(f"{self.uri} was replaced by another writer at the same time; run the task again")
            if head["ContentLength"] != size:
                raise StorageError(
                    f"{self.uri}: {self.s3.endpoint} holds {head['ContentLength']:,} bytes of the {size:,} uploaded"
                )
            if head["ETag"] == etag:
                return ObjectInfo(self.uri, size, etag.strip('"'))
            etag = head["ETag"]
        raise StorageError(f"{self.uri}: {self.s3.endpoint} names another ETag of it every time; run the task again")

    def _head(self) -> dict[str, Any]:
        """Return the object's HEAD, or an empty one where there is no object."""
        try:
            head: dict[str, Any] = self.s3.attempt(lambda: self.s3.boto3.head_object(**self.place))
        except ClientError as error:
            if is_not_found(error):
                return {"Metadata": {_METADATA_NAME: ""}}
            raise
        return head

    def _is_ours(self, head: dict[str, Any]) -> bool:
        return bool(head["Metadata"].get(_METADATA_NAME) == self._token)
