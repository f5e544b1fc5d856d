"""Objects in S3 and in what speaks its protocol, through boto3."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import boto3.exceptions
from botocore import exceptions as botocore_exceptions
from botocore.config import Config
from s3transfer.exceptions import S3DownloadFailedError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from clip_operator.storage.backend import (
    AccessDenied,
    BucketNotFound,
    CredentialsError,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    Unchanged,
    changed_while_read,
)
from clip_operator.storage.uri import display

_REFUSED_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName"})
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound", "KeyTooLongError"})
_DENIED = frozenset({"403", "AccessDenied", "Forbidden"})

# Enough connections for the threads that fetch images; boto3's default of 10 would make them queue.
_MAX_CONNECTIONS = 64

_DELETING_THREADS = 16

# botocore retries a request until its headers are there; a connection that breaks later is ours to try again.
_retry_broken_body = Retrying(
    retry=retry_if_exception_type(
        (
            botocore_exceptions.IncompleteReadError,
            botocore_exceptions.ReadTimeoutError,
            botocore_exceptions.ResponseStreamingError,
        )
    ),
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    reraise=True,
)


def split(uri: str) -> tuple[str, str]:
    """Return the bucket and key of ``s3://bucket/key``."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket:
        raise StorageError(f"{uri}: an S3 URI needs a bucket, as in s3://bucket/key")
    if "@" in bucket:
        raise StorageError(f"{display(uri)}: an S3 URI holds no credentials; set aws_conn_id or the AWS_ variables")
    return bucket, key


class S3Backend:
    """S3 through one boto3 client, with botocore's own retries.

    :param session: the boto3 session to take credentials from; None for boto3's own chain.
    :param endpoint_url: the endpoint, for stores other than AWS; None for ``AWS_ENDPOINT_URL(_S3)`` or AWS.
    :param verify: TLS verification as boto3 takes it; None for its default.
    """

    def __init__(
        self,
        session: boto3.session.Session | None = None,
        endpoint_url: str | None = None,
        verify: bool | str | None = None,
        timeout_seconds: float = 20,
        own_config: Config | None = None,
    ) -> None:
        config = Config(
            retries={"mode": "standard", "max_attempts": 5},
            max_pool_connections=_MAX_CONNECTIONS,
            connect_timeout=10,
            read_timeout=60,
        )
        try:
            session = session or boto3.session.Session()
            self._client: Any = session.client("s3", endpoint_url=endpoint_url, config=config, verify=verify)
        except (botocore_exceptions.BotoCoreError, ValueError) as error:
            raise CredentialsError(f"cannot set up S3 access: {error}") from None
        self._endpoint: str = self._client.meta.endpoint_url

    def stat(self, uri: str) -> ObjectInfo:
        bucket, key = split(uri)
        with self._translating(uri):
            head = self._client.head_object(Bucket=bucket, Key=key)
        return ObjectInfo(uri=uri, size=head["ContentLength"], etag=head["ETag"].strip('"'))

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        bucket, key = split(uri)
        with self._translating(uri):
            for attempt in _retry_broken_body.copy():
                with attempt:
                    response = self._client.get_object(Bucket=bucket, Key=key)
                    with closing(response["Body"]) as body:  # "with body" would give the unguarded stream below it
                        size = response["ContentLength"]
                        if max_bytes is not None and size > max_bytes:
                            raise ObjectTooLarge(f"{uri} has {size:,} bytes, more than the {max_bytes:,} accepted")
                        data: bytes = body.read()
        return data

    def download(self, info: ObjectInfo, path: Path) -> None:
        bucket, key = split(info.uri)
        with self._translating(info.uri):
            self._client.download_file(bucket, key, str(path))
        if self.stat(info.uri) != info or path.stat().st_size != info.size:
            raise StorageError(f"{info.uri} changed while it was being read; run the task again")

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        data = self.read(uri)
        start = max(0, len(data) + start) if start < 0 else start
        return data[start : start + length]

    def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        bucket, key = split(uri)
        self._check(uri, only_if)
        with self._translating(uri):
            self._client.upload_file(str(path), bucket, key)
        return self.stat(uri)

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        bucket, key = split(uri)
        self._check(uri, only_if)
        with self._translating(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=data)
        return self.stat(uri)

    def _check(self, uri: str, only_if: Unchanged | None) -> None:
        if only_if is None:
            return
        try:
            found = self.stat(uri)
        except ObjectNotFound:
            found = None
        only_if.check(uri, found)

    def unfinished_uploads(self, uri: str) -> list[str]:
        bucket, key = split(uri)
        with self._translating(uri):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
            return [found["UploadId"] for page in pages for found in page.get("Uploads", []) if found["Key"] == key]

    def discard_unfinished_uploads(self, uri: str) -> int:
        bucket, key = split(uri)
        unfinished = self.unfinished_uploads(uri)
        with self._translating(uri):
            for upload_id in unfinished:
                self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
        return len(unfinished)

    def delete(self, uri: str) -> None:
        bucket, key = split(uri)
        with self._translating(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def delete_folder(self, uri: str) -> None:
        # One request each: a request for many needs a checksum that some stores do not know.
        with ThreadPoolExecutor(_DELETING_THREADS, thread_name_prefix="clip-delete") as threads:
            for _ in threads.map(lambda info: self.delete(info.uri), self.list(uri)):
                pass

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        bucket, key = split(prefix)
        scheme = prefix.partition("://")[0]
        with self._translating(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
                for item in page.get("Contents", []):
                    uri = f"{scheme}://{bucket}/{item['Key']}"
                    yield ObjectInfo(uri=uri, size=item["Size"], etag=item["ETag"].strip('"'))

    @contextmanager
    def _translating(self, uri: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except botocore_exceptions.NoCredentialsError:
            raise CredentialsError(
                f"{uri}: no AWS credentials were found; set aws_conn_id, a service account, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            ) from None
        except botocore_exceptions.PartialCredentialsError as error:
            raise CredentialsError(f"{uri}: incomplete AWS credentials: {error}") from None
        except botocore_exceptions.ClientError as error:
            raise self._translated(uri, error) from None
        except boto3.exceptions.S3UploadFailedError as error:
            # boto3 wraps the reason in a text and keeps the ClientError only as the context
            if isinstance(error.__context__, botocore_exceptions.ClientError):
                raise self._translated(uri, error.__context__) from None
            raise StorageError(f"cannot write {uri}: {error}") from None
        except S3DownloadFailedError:  # every part is asked for with the ETag of the first
            raise StorageError(f"{uri} changed while it was being read; run the task again") from None
        except boto3.exceptions.RetriesExceededError as error:
            raise StorageError(
                f"{uri}: the connection broke, and again at every retry: {error.last_exception}"
            ) from None
        except botocore_exceptions.ParamValidationError:  # boto3 knows that no store has such a name
            raise BucketNotFound(f"{uri} does not name a bucket and a key, as in s3://bucket/key") from None
        except (botocore_exceptions.EndpointConnectionError, botocore_exceptions.ConnectTimeoutError):
            raise StorageError(
                f"{uri}: cannot connect to the S3 endpoint {self._endpoint}; check the address and the network"
            ) from None
        except (botocore_exceptions.BotoCoreError, OSError) as error:
            raise StorageError(f"{uri}: {type(error).__name__}: {error}") from None

    def _translated(self, uri: str, error: botocore_exceptions.ClientError) -> StorageError:
        bucket, _ = split(uri)
        code = self._code(uri, error)
        if code in _NO_BUCKET:
            return BucketNotFound(f"{uri}: the bucket '{bucket}' does not exist at {self._endpoint}")
        if code == "InvalidObjectState":
            return AccessDenied(f"{uri} is archived and cannot be read until it is restored")
        if code in _NOT_FOUND:
            return ObjectNotFound(f"{uri} does not exist")
        if code in _REFUSED_CREDENTIALS:
            return CredentialsError(f"{uri}: the S3 credentials were refused ({code}) by {self._endpoint}")
        if code in _DENIED:
            return AccessDenied(
                f"{uri}: access denied by {self._endpoint}; check the credentials and what they may read and write"
            )
        return StorageError(f"{uri}: {error}")

    def _code(self, uri: str, error: botocore_exceptions.ClientError) -> str:
        """Return S3's own name for what went wrong, as in ``NoSuchBucket``."""
        code = _code_in(error)
        if not code.isdigit():
            return code
        # The answer to a HEAD has no body, only an HTTP status: a missing key looks like a missing bucket, and refused
        # credentials like a forbidden object. A GET says which.
        bucket, key = split(uri)
        try:
            self._client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
        except botocore_exceptions.ClientError as explained:
            return _code_in(explained)
        except botocore_exceptions.BotoCoreError:
            return code
        return code


def _code_in(error: botocore_exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
