"""Images from the web: only from allowed hosts, at every redirect, and never more bytes or time than agreed."""

from __future__ import annotations

import time
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    LocationParseError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    TimeoutError,
)
from urllib3.util import Retry, Timeout, parse_url

from clip_operator.errors import Reason, RowError
from clip_operator.images.hosts import HostRule
from clip_operator.images.location import ImageLocation, shown
from clip_operator.images.policy import ImagePolicy

_MAX_REDIRECTS = 5
_CHUNK_BYTES = 64 << 10
_WHOLE_IMAGE_TIMEOUTS = 10  # how many times the time out for silence one whole image may take
_MAX_CONNECTIONS_PER_HOST = 64  # as many as threads that fetch; more would be opened and thrown away
_MAX_RETRY_AFTER_SECONDS = 20.0
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 403, 451})

_HEADERS = {
    "User-Agent": "airflow-clip-operator",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",  # images are compressed already; what is not inflated cannot explode
}


class WebImages:
    """Fetches http(s) images within a policy. One instance serves many threads and keeps its connections.

    Certificates are verified, no credentials or cookies are sent, and proxies in the environment are not used.
    """

    def __init__(self, policy: ImagePolicy) -> None:
        self._rules = tuple(HostRule.parse(host) for host in policy.image_hosts)
        self._max_bytes = policy.max_bytes
        self._timeout = Timeout(connect=min(10.0, policy.http_timeout_seconds), read=policy.http_timeout_seconds)
        self._whole_seconds = policy.http_timeout_seconds * _WHOLE_IMAGE_TIMEOUTS
        self._pool = urllib3.PoolManager(maxsize=_MAX_CONNECTIONS_PER_HOST, headers=_HEADERS)

    def locate(self, url: str) -> ImageLocation:
        """Return the location that a URL names, without I/O; raise :class:`RowError` if it may not be called."""
        return ImageLocation(self._allowed(url))

    def fetch(self, location: ImageLocation) -> bytes:
        """Return the bytes of an image, or raise :class:`RowError`."""
        deadline = time.monotonic() + self._whole_seconds
        url = self._allowed(location.key)
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._get(url, deadline)
            if isinstance(answer, bytes):
                return answer
            url = self._allowed(urljoin(url, answer))
        raise RowError(Reason.IMAGE_UNAVAILABLE, f"{location} was redirected more than {_MAX_REDIRECTS} times")

    def _allowed(self, url: str) -> str:
        # The same parser as the connection's own, and its output goes to the connection: what is checked is called.
        try:
            parts = parse_url(url)
        except LocationParseError:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(url)} is not a URL that names a host") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(url)} is not an http(s) URL that names a host")
        if parts.auth is not None:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(url)} has a user name in it; those are never sent")
        if not any(rule.allows(parts.scheme, parts.host, parts.port) for rule in self._rules):
            raise RowError(
                Reason.IMAGE_FORBIDDEN,
                f"{shown(url)}: the host {shown(parts.netloc or '')} is not in the allowed hosts",
            )
        return parts._replace(fragment=None, path=parts.path or "/").url

    def _get(self, url: str, deadline: float) -> bytes | str:
        """Return the body, or where the host redirects to, trying again as long as that may help."""
        # urllib3 would follow retries itself, but reads the bodies of the failed answers whole, however long.
        retries = _BoundedRetry(total=3, backoff_factor=0.25, backoff_jitter=0.25, status_forcelist=_TRY_AGAIN)
        while True:
            response: urllib3.BaseHTTPResponse | None = None
            failure: HTTPError | None = None
            try:
                response = self._pool.urlopen(
                    "GET", url, redirect=False, retries=False, timeout=self._timeout, preload_content=False
                )
                if response.status not in _TRY_AGAIN:
                    return self._answer(url, response, deadline)
                problem = f"HTTP status {response.status}"
            except (NewConnectionError, ProtocolError, TimeoutError) as error:
                failure, problem = error, _named(error)
            except HTTPError as error:  # a bad certificate, a header that is none: the same at the next try
                raise RowError(Reason.IMAGE_UNAVAILABLE, f"{shown(url)}: {_named(error)}") from None
            finally:
                if response is not None:
                    response.close()
            try:
                retries = retries.increment("GET", shown(url), response=response, error=failure)
            except MaxRetryError:
                raise RowError(Reason.IMAGE_UNAVAILABLE, f"{shown(url)}: {problem}, at every try") from None
            retries.sleep(response)
            self._check_time(url, deadline)

    def _answer(self, url: str, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes | str:
        target = response.get_redirect_location()
        if target:
            return target
        if response.status in _GONE:
            raise RowError(Reason.IMAGE_NOT_FOUND, f"{shown(url)}: HTTP status {response.status}")
        if response.status in _DENIED:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(url)}: HTTP status {response.status}")
        if response.status != 200:
            raise RowError(Reason.IMAGE_UNAVAILABLE, f"{shown(url)}: HTTP status {response.status}")
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise RowError(Reason.IMAGE_UNREADABLE, f"{shown(url)} came compressed, which was not asked for")
        return self._body(url, response, deadline)

    def _body(self, url: str, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        # The announced length is only a hint (and absent from chunked answers), so what arrives is counted.
        body = bytearray()
        while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
            body += chunk
            if len(body) > self._max_bytes:
                raise RowError(
                    Reason.IMAGE_TOO_LARGE, f"{shown(url)} has more than the {self._max_bytes:,} bytes accepted"
                )
            self._check_time(url, deadline)
        return bytes(body)

    def _check_time(self, url: str, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise RowError(
                Reason.IMAGE_UNAVAILABLE, f"{shown(url)} was not complete after {self._whole_seconds:g} seconds"
            )


class _BoundedRetry(Retry):
    """urllib3's retry policy, for hosts that ask for too much patience or in words that are no number or date."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except InvalidHeader:
            return None
        return None if seconds is None else min(seconds, _MAX_RETRY_AFTER_SECONDS)


def _named(error: HTTPError) -> str:
    # The texts of urllib3's errors repeat the URL, with its query; the class says what happened.
    return type(error).__name__
