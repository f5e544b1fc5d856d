"""How an object appears in S3: whole, under a condition, and known afterwards by the right ETag."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from clip_operator.storage.objects import ObjectChanged, ObjectInfo, StorageError, Unchanged, find
from clip_operator.storage.s3.client import S3Client, split
from clip_operator.storage.s3.errors import code_of, is_changed, is_not_found, is_not_known

# Every upload carries a random token: where an answer got lost, the token tells whose the object is.
_METADATA_NAME = "clip-operator-upload"

Publish = Callable[[dict[str, str]], str]


class Publication:
    """One object that is to appear at one place.

    A precondition is looked up first, which is cheap, and sent along with the request that makes the object appear. A
    store that does not know conditional writes refuses them, or ignores them in silence: there the first look, and the
    one after the upload, are all there is, and of two writers at the same time the later one wins.

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
        condition = {}
        if self._only_if is not None:
            expected = self._only_if.expected
            condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": f'"{expected.etag}"'}
        with self.s3.errors_explained(self.uri):
            try:
                return self._confirmed(self.s3.attempt(lambda: publish(condition)), size)
            except ClientError as error:
                if condition and is_not_known(error):
                    self.check()
                    return self._confirmed(self.s3.attempt(lambda: publish({})), size)
                # A try before this one may have done it, and only its answer was lost.
                lost = is_changed(error) or is_not_found(error) or code_of(error) == "NoSuchUpload"
                if not lost or not self._is_ours(found := self._head()):
                    if is_changed(error) or (condition and is_not_found(error)):
                        self.check()
                        raise ObjectChanged(
                            f"{self.uri} was changed in the meantime, and is left as it is; run the task again"
                        ) from None
                    raise
                return self._confirmed(found["ETag"], size)

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
