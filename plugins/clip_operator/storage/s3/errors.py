"""What S3 answers, told in words."""

from __future__ import annotations

from botocore import exceptions as botocore_exceptions
from botocore.parsers import ResponseParserError

from clip_operator.storage.objects import (
    AccessDenied,
    BucketNotFound,
    CredentialsError,
    ObjectNotFound,
    StorageError,
)

_REFUSED_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"})
_EXPIRED_CREDENTIALS = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName"})
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound", "KeyTooLongError"})
_DENIED = frozenset({"403", "AccessDenied", "Forbidden"})
_UNCHANGED_REFUSED = frozenset({"412", "PreconditionFailed"})

# What stores answer to headers or encodings that are newer than they are.
_NOT_KNOWN = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest", "UnsupportedHeader"})
_CHECKSUM_NOT_KNOWN = _NOT_KNOWN | {
    "BadDigest",
    "InvalidDigest",
    "MalformedTrailerError",
    "MissingContentLength",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_WRITES = frozenset({"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"})

_BUSY_STATUSES = frozenset({429, 500, 502, 503, 504})
_BUSY_CODES = frozenset(
    {
        "ConditionalRequestConflict",  # two conditional writes met; the next try sees who won
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_BROKEN = (
    botocore_exceptions.ConnectionError,
    botocore_exceptions.FlexibleChecksumError,
    botocore_exceptions.HTTPClientError,
    botocore_exceptions.IncompleteReadError,
    botocore_exceptions.ResponseStreamingError,
    ResponseParserError,
)


def code_of(error: botocore_exceptions.ClientError) -> str:
    """Return S3's own name for what went wrong, as in ``NoSuchBucket``; the answer to a HEAD has only a status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: botocore_exceptions.ClientError) -> int:
    """Return the HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_passing(error: BaseException) -> bool:
    """Whether the same request may well succeed when it is tried again."""
    if isinstance(error, botocore_exceptions.ClientError):
        return status_of(error) in _BUSY_STATUSES or code_of(error) in _BUSY_CODES
    return isinstance(error, _BROKEN)


def is_not_found(error: botocore_exceptions.ClientError) -> bool:
    """Whether there is no such object, or was none when a condition named its version."""
    return code_of(error) in _NOT_FOUND


def is_changed(error: botocore_exceptions.ClientError) -> bool:
    """Whether the store found that a condition does not hold."""
    return code_of(error) in _UNCHANGED_REFUSED


def is_not_known(error: botocore_exceptions.ClientError) -> bool:
    """Whether the store may have refused a header only because it does not know it."""
    return status_of(error) == 501 or code_of(error) in _NOT_KNOWN


def explained(
    uri: str, endpoint: str, error: Exception, code: str, *, tries: int, sends_checksums: bool
) -> StorageError:
    """Return the error that tells a person what happened to ``uri`` and what to do.

    :param code: S3's own name for what went wrong, where the store answered.
    :param tries: how often the request was made.
    :param sends_checksums: boto3 sends its newer checksums along with uploads.
    """
    if isinstance(error, botocore_exceptions.ClientError):
        return _refusal(uri, endpoint, error, code, tries, sends_checksums)
    if isinstance(error, botocore_exceptions.NoCredentialsError):
        return CredentialsError(
            f"{uri}: no AWS credentials were found; set aws_conn_id, a service account, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, botocore_exceptions.PartialCredentialsError):
        return CredentialsError(f"{uri}: incomplete AWS credentials: {error}")
    if isinstance(error, botocore_exceptions.CredentialRetrievalError):
        return CredentialsError(f"{uri}: the AWS credentials could not be had or renewed: {error}")
    if isinstance(error, botocore_exceptions.ParamValidationError):  # boto3 knows that no store has such a name
        return BucketNotFound(f"{uri} does not name a bucket and a key, as in s3://bucket/key")
    if isinstance(error, botocore_exceptions.EndpointConnectionError | botocore_exceptions.ConnectTimeoutError):
        return StorageError(f"{uri}: cannot connect to the S3 endpoint {endpoint}; check the address and the network")
    if isinstance(error, _BROKEN):
        return StorageError(
            f"{uri}: the connection to {endpoint} broke or stalled, and again at every retry, {tries} tries in all: "
            f"{type(error).__name__}: {error}"
        )
    return StorageError(f"{uri}: {type(error).__name__}: {error}")


def _refusal(
    uri: str, endpoint: str, error: botocore_exceptions.ClientError, code: str, tries: int, sends_checksums: bool
) -> StorageError:
    bucket = uri.partition("://")[2].partition("/")[0]
    if is_passing(error):
        return StorageError(
            f"{uri}: {endpoint} kept failing ({code}) through {tries} tries; it is overloaded or out of order: "
            "run the task again later"
        )
    if code in _NO_BUCKET:
        return BucketNotFound(f"{uri}: the bucket '{bucket}' does not exist at {endpoint}")
    if code == "InvalidObjectState":
        return AccessDenied(f"{uri} is archived and cannot be read until it is restored")
    if code in _NOT_FOUND:
        return ObjectNotFound(f"{uri} does not exist")
    if (refused := _credentials_refused(uri, endpoint, code)) is not None:
        return refused
    if code in _DENIED:
        return AccessDenied(
            f"{uri}: access denied by {endpoint}; check the credentials and what they may read and write in the bucket "
            f"'{bucket}'"
        )
    hint = ""
    if sends_checksums and error.operation_name in _WRITES and (is_not_known(error) or code in _CHECKSUM_NOT_KNOWN):
        hint = (
            ". If the store is too old for boto3's checksums, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required, or "
            'config_kwargs={"request_checksum_calculation": "when_required"} in the extra of the Airflow connection'
        )
    return StorageError(f"{uri}: {error}{hint}")


def _credentials_refused(uri: str, endpoint: str, code: str) -> CredentialsError | None:
    if code in _EXPIRED_CREDENTIALS:
        return CredentialsError(
            f"{uri}: the S3 credentials have expired ({code}). Run the task again with fresh ones: work done so far is "
            "kept for the next try. For long jobs use credentials that renew themselves: a role, a service account, or "
            "credential_process"
        )
    if code in _REFUSED_CREDENTIALS:
        return CredentialsError(f"{uri}: the S3 credentials were refused ({code}) by {endpoint}")
    if code == "RequestTimeTooSkewed":
        return CredentialsError(
            f"{uri}: {endpoint} refused the request because this machine's clock differs too much from its own; "
            "set the clock (NTP) and run the task again"
        )
    return None
