"""What Google Cloud Storage and Azure answer, told in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    InvalidPathError,
    PreconditionError,
)

from clip_operator.storage.objects import (
    AccessDenied,
    BucketNotFound,
    CredentialsError,
    KeyNotSupported,
    ObjectNotFound,
    StorageError,
)

FAILURES = (BaseError, FileNotFoundError, NotImplementedError, ValueError)
"""What obstore raises."""

REFUSED = (AlreadyExistsError, PreconditionError)
"""What it raises where a condition does not hold."""

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>|\"code\":\s*\"?(\w+)")
_RETRIES = re.compile(r"after (\d+) retries")
_DELETING = "Bulk delete request failed for key "
_NO_RANGE = "bytes 0--1/0"  # what Azurite answers instead where an empty object's first byte is asked for
_MOST_LETTERS = 300

_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "InvalidResourceName"})
_REFUSED_CREDENTIALS = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"})
_UNAUTHENTIC = "failed to authenticate the request"  # Azurite calls it AuthorizationFailure, as what is forbidden
_ARCHIVED = frozenset({"BlobArchived", "BlobBeingRehydrated"})
_BUSY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_NO_CREDENTIALS = re.compile(
    r"token request|credential|authorization request|managed identity|service account|Account must be specified"
    r"|application_default|access key|federated",
    re.IGNORECASE,
)
_ASKING_FOR_CREDENTIALS = re.compile(
    r"Generic \w+ error: [^:]*(token request|authorization request|managed identity|credential)", re.IGNORECASE
)
_UNREACHABLE = re.compile(r"tcp connect error|dns error|\(Connect\)|Connection refused", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """What obstore raised, and what it says of it.

    :param text: without the name of the object, which may read like anything, and what comes before it; on one line.
    """

    error: BaseException
    text: str

    @classmethod
    def of(cls, error: BaseException, key: str) -> Self:
        """Return what was raised about the object of this key; empty, where it was about none."""
        text = " ".join(str(error).partition("\n\nDebug source")[0].split())
        named = " ".join(key.split())
        if named and not isinstance(error, GenericError):  # others begin with the object; in a URL it is quoted
            text = text[max(0, text.find(named)) :].removeprefix(named)
            before, again, rest = text.partition(_DELETING)
            text = before + again + rest.removeprefix(named)
        return cls(error, text)

    @property
    def status(self) -> int | None:
        """The HTTP status of the last answer, if there was one."""
        match = _STATUS.search(self.text)
        return None if match is None else int(match[1])

    @property
    def code(self) -> str:
        """The store's own name for what went wrong, as in ``NoSuchBucket``; empty for an answer without a body."""
        match = _CODE.search(self.text)
        return "" if match is None else match[1] or match[2]

    @property
    def is_passing(self) -> bool:
        """Whether the same request may well succeed when it is made again."""
        return self.status in _BUSY_STATUSES or self.is_cut

    @property
    def is_cut(self) -> bool:
        """Whether the connection was not there, or broke, or took too long."""
        return self.status is None and "HTTP error" in self.text

    @property
    def is_past_the_end(self) -> bool:
        """Whether a range begins where the object has ended."""
        return self.status == 416 or _NO_RANGE in self.text

    @property
    def shortened(self) -> str:
        """So much of the text as a person may want to read."""
        return self.text if len(self.text) <= _MOST_LETTERS else f"{self.text[:_MOST_LETTERS]}…"


def is_broken(error: BaseException) -> bool:
    """Whether an answer's body broke off, or came too slowly."""
    return isinstance(error, GenericError) and "response body error" in str(error)


def explained(uri: str, endpoint: str, bucket: str, failure: Failure) -> StorageError:
    """Return the error that tells a person what happened to ``uri`` and what to do."""
    code = failure.code
    if code in _NO_BUCKET:
        return BucketNotFound(f"{uri}: the bucket or container '{bucket}' does not exist at {endpoint}")
    if code in _ARCHIVED:
        return AccessDenied(f"{uri} is archived and cannot be read until it is restored")
    if isinstance(failure.error, FileNotFoundError):
        return ObjectNotFound(f"{uri} does not exist")
    if isinstance(failure.error, InvalidPathError):
        return KeyNotSupported(
            f"{uri}: a listing holds an object whose key has nothing, '.' or '..' between two slashes, or control "
            f"characters, and cannot be read here ({failure.shortened}). Give that object another name, or reach the "
            "store by a driver of fsspec"
        )
    return _refusal(uri, endpoint, bucket, failure) or _failure(uri, endpoint, failure)


def _refusal(uri: str, endpoint: str, bucket: str, failure: Failure) -> StorageError | None:
    if _ASKING_FOR_CREDENTIALS.match(failure.text):
        return CredentialsError(
            f"{uri}: no credentials for {endpoint} could be had or renewed: {failure.shortened}. Set them in the "
            "environment of what scores, or give it an identity that may read and write there"
        )
    if failure.status == 401 or failure.code in _REFUSED_CREDENTIALS or _UNAUTHENTIC in failure.text:
        return CredentialsError(
            f"{uri}: the credentials were refused by {endpoint} ({failure.code or failure.status}); they are wrong or "
            "have expired, or this machine's clock is not set"
        )
    if failure.status == 403:
        return AccessDenied(
            f"{uri}: access denied by {endpoint}; check the credentials and what they may read and write in the bucket "
            f"or container '{bucket}'"
        )
    return None


def _failure(uri: str, endpoint: str, failure: Failure) -> StorageError:
    tries = int(match[1]) + 1 if (match := _RETRIES.search(failure.text)) else 1
    if failure.status in _BUSY_STATUSES:
        return StorageError(
            f"{uri}: {endpoint} kept failing ({failure.status}) through {tries} tries; it is overloaded or out of "
            "order: run the task again later"
        )
    if failure.is_cut and _UNREACHABLE.search(str(failure.error)):
        return StorageError(f"{uri}: cannot connect to {endpoint}; check the address and the network")
    if failure.is_cut:
        return StorageError(
            f"{uri}: the connection to {endpoint} broke or stalled, or was too slow, and again at every retry: "
            f"{failure.shortened}"
        )
    return StorageError(f"{uri}: {failure.shortened}")


def not_set_up(endpoint: str, error: BaseException) -> StorageError:
    """Return the error for a store that obstore cannot make out of what the environment says."""
    text = Failure.of(error, "").shortened
    if _NO_CREDENTIALS.search(text):
        return CredentialsError(
            f"the credentials for {endpoint} cannot be used: {text}. If gcsfs or adlfs can use them, "
            "install it, and set FSSPEC_GS={} or FSSPEC_AZ={} to reach the store by it"
        )
    return StorageError(f"cannot set up the access to {endpoint}: {text}")
