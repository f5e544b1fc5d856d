"""A boto3 client whose every request is bounded in time, tried again, and fails in words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, TypeVar

import boto3
from botocore import exceptions as botocore_exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from urllib3.exceptions import HTTPError

from clip_operator.storage.objects import CredentialsError, StorageError
from clip_operator.storage.s3.access import S3Access
from clip_operator.storage.s3.conditions import Conditions
from clip_operator.storage.s3.connections import keep_deadlines
from clip_operator.storage.s3.errors import code_of, explained, is_passing, status_of
from clip_operator.storage.s3.pace import Exchange, PacedAnswer
from clip_operator.storage.uri import display, what_is_wrong_with

T = TypeVar("T")

_MAX_ATTEMPTS = 8
_CONNECT_SECONDS = 10

# Enough connections for the threads that fetch images; boto3's default of 10 would make them queue.
_MAX_CONNECTIONS = 64


def split(uri: str) -> tuple[str, str]:
    """Return the bucket and key of ``s3://bucket/key``."""
    if problem := what_is_wrong_with(uri):
        raise StorageError(f"{display(uri)}: {problem}")
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


class S3Client:
    """One boto3 client for many threads.

    botocore tries a request again until its headers are there. What is left to do: answers that trickle or have no end
    get a deadline; and bodies that break are tried again, as is what botocore gives up early, because a burst of
    failures in many threads has used up its quota of retries. The limit to the number of tries is the same.

    :param access: how S3 is reached; its ``timeout_seconds`` are also the grace of every body's :class:`Pace`.
    """

    def __init__(self, access: S3Access) -> None:
        try:
            self._session = access.session or boto3.session.Session()
            settings = _settings(self._session, access.timeout_seconds, access.config)
            self.boto3: Any = self._session.client(
                "s3", endpoint_url=access.endpoint_url, config=settings, verify=access.verify
            )
        except (botocore_exceptions.BotoCoreError, ValueError) as error:
            raise CredentialsError(f"cannot set up S3 access: {error}") from None
        self.endpoint: str = self.boto3.meta.endpoint_url
        self.conditions = Conditions(self.endpoint)
        self.config = access.config
        self.timeout_seconds = access.timeout_seconds
        self.max_attempts = int(self.boto3.meta.config.retries["total_max_attempts"])
        # Only stores of the last years know the checksums that boto3 sends unless it is told not to.
        self.sends_checksums = self.boto3.meta.config.request_checksum_calculation == "when_supported"
        self._made = threading.local()
        self._retrying = Retrying(
            retry=retry_if_exception(is_passing),
            stop=self._used_up,
            wait=wait_random_exponential(multiplier=0.2, max=20),
            reraise=True,
        )
        silence = self.boto3.meta.config.read_timeout
        self._head_seconds = inf if silence is None else float(silence)
        keep_deadlines(self.boto3)
        self.boto3.meta.events.register("before-send.s3", self._send)

    def request(self, uri: str, call: Callable[[], T]) -> T:
        """Return what ``call``, which asks boto3 for something about ``uri``, returns.

        :raises StorageError: it failed at every try, or in a way that no other try would mend.
        """
        with self.errors_explained(uri):
            return self.attempt(call)

    def attempt(self, call: Callable[[], T]) -> T:
        """Do as :meth:`request` does, but leave the errors as boto3 raises them."""
        self._made.tries = 0
        return self._retrying(call)

    @contextmanager
    def errors_explained(self, uri: str) -> Iterator[None]:
        """Turn what boto3 raises about ``uri`` into a :class:`StorageError`."""
        try:
            yield
        except (botocore_exceptions.BotoCoreError, botocore_exceptions.ClientError, ResponseParserError) as error:
            tries = self._tries()  # before another request is made
            code = self._code(uri, error) if isinstance(error, botocore_exceptions.ClientError) else ""
            raise explained(
                uri, self.endpoint, error, code, tries=tries, sends_checksums=self.sends_checksums
            ) from None

    def credentials(self) -> Any:
        """Return botocore's credentials of now, renewed if need be, as a tuple of key, secret and token."""
        return self._session.get_credentials().get_frozen_credentials()

    def last_request(self) -> Any:
        """Return the last request that this thread has sent, as botocore's ``AWSPreparedRequest``."""
        return self._made.request

    def _code(self, uri: str, error: botocore_exceptions.ClientError) -> str:
        """Return S3's code. An answer without a body, as to a HEAD, has only a status; to a GET it gives the code.

        A HEAD's missing key looks like a missing bucket, and refused credentials like a forbidden object.
        """
        code = code_of(error)
        if code.isdigit() and not is_passing(error):
            bucket, key = split(uri)
            try:
                self.boto3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
            except botocore_exceptions.ClientError as answer:
                return code_of(answer) if str(status_of(answer)) == code else code
            except (botocore_exceptions.BotoCoreError, ResponseParserError):
                return code
        return code

    def _tries(self) -> int:
        """Return how many requests this thread has made since its last :meth:`attempt` began."""
        return getattr(self._made, "tries", 0)

    def _used_up(self, _: RetryCallState) -> bool:
        return self._tries() >= self.max_attempts

    def _send(self, request: Any, **_: Any) -> Any:
        """Send a request in botocore's place, and return its answer; neither head nor body can take for ever."""
        self._made.tries = self._tries() + 1
        self._made.request = request
        is_streamed = request.stream_output
        request.stream_output = True  # else the whole body would be read here, however slowly it comes
        exchange = Exchange(self._head_seconds)
        with exchange.kept():
            answer = self.boto3._endpoint.http_session.send(request)
        answer.raw = PacedAnswer(answer.raw, exchange, self.timeout_seconds)
        if is_streamed and answer.status_code < 300:
            return answer
        try:
            received = len(answer.content)
        except HTTPError as error:
            raise botocore_exceptions.ConnectionClosedError(endpoint_url=request.url, error=error) from None
        expected = answer.headers.get("Content-Length", "")
        if request.method != "HEAD" and expected.isdigit() and int(expected) != received:
            reason = f"{received} of {expected} bytes"  # as botocore, for bodies it hands out, compares itself
            raise botocore_exceptions.ConnectionClosedError(endpoint_url=request.url, error=reason)
        return answer


def _settings(session: boto3.session.Session, timeout_seconds: float, config: Config | None) -> Config:
    # A Config would win over the environment and the profile, so what these set is left out of it. boto3 has no door of
    # its own to their settings.
    known = session._session.get_config_variable
    retries: dict[str, Any] = {}
    if known("retry_mode") is None:
        retries["mode"] = "standard"
    if known("max_attempts") is None:
        retries["total_max_attempts"] = _MAX_ATTEMPTS
    own = dict((config and config.retries) or {})
    if "max_attempts" in own:
        retries.pop("total_max_attempts", None)
    settings = Config(
        max_pool_connections=_MAX_CONNECTIONS,
        connect_timeout=min(_CONNECT_SECONDS, timeout_seconds),
        read_timeout=timeout_seconds,
    )
    if config is not None:
        settings = settings.merge(config)
    return settings.merge(Config(retries=retries | own))
