"""Images from the web: only from allowed hosts, at every redirect, and never more bytes or time than agreed."""

from __future__ import annotations

import socket
import time
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationParseError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    TimeoutError,
)
from urllib3.util import Retry, Timeout, Url, parse_url

from clip_operator.errors import Reason, RowError
from clip_operator.images.dead_hosts import DeadHosts
from clip_operator.images.hosts import DEFAULT_PORTS, AllowedHosts, literal_address
from clip_operator.images.location import ImageLocation, shown
from clip_operator.images.policy import ImagePolicy
from clip_operator.images.resolution import Resolver
from clip_operator.machine.connections import TIMED_POOLS, Deadline

_MAX_REDIRECTS = 5
_CHUNK_BYTES = 64 << 10
_MAX_CONNECT_SECONDS = 10.0
_WHOLE_IMAGE_TIMEOUTS = 10  # how many times the time out for silence one whole image may take
_MAX_CONNECTIONS_PER_HOST = 64  # as many as threads that fetch; more would be opened and thrown away
_MAX_HOSTS_WITH_CONNECTIONS = 64
_MAX_RETRY_AFTER_SECONDS = 20.0
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 403, 451})
# What a host says of itself; 500 may be the fault of the one image.
_ABOUT_THE_HOST = frozenset({429, 502, 503, 504})

_HEADERS = {
    "User-Agent": "airflow-clip-operator",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",  # images are compressed already; what is not inflated cannot explode
}


class _Unavailable(RowError):
    """An image that its host did not deliver."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.IMAGE_UNAVAILABLE, detail)


class _NoAnswer(_Unavailable):
    """An image that could not be had because of its host: others of the same host would fare alike."""


class WebImages:
    """Fetches http(s) images within a policy. One instance serves many threads and keeps its connections.

    A connection leads to an address that was checked, not to a name that would be resolved a second time. Certificates
    are verified against the name, no credentials or cookies are sent, and proxies in the environment are not used.
    """

    def __init__(self, policy: ImagePolicy) -> None:
        self._hosts = AllowedHosts(policy.image_hosts)
        self._resolver = Resolver(self._hosts)
        self._dead_hosts = DeadHosts()
        self._max_bytes = policy.max_bytes
        self._silent_seconds = policy.http_timeout_seconds
        self._whole_seconds = policy.http_timeout_seconds * _WHOLE_IMAGE_TIMEOUTS
        self._pools = urllib3.PoolManager(_MAX_HOSTS_WITH_CONNECTIONS, maxsize=_MAX_CONNECTIONS_PER_HOST)
        self._pools.pool_classes_by_scheme = TIMED_POOLS

    def locate(self, url: str) -> ImageLocation:
        """Return the location that a URL names, without I/O; raise :class:`RowError` if it may not be called."""
        return ImageLocation(self._allowed(url).url)

    def fetch(self, location: ImageLocation) -> bytes:
        """Return the bytes of an image, or raise :class:`RowError`."""
        deadline = Deadline(self._whole_seconds)
        url = self._allowed(location.key)
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._get_unless_dead(url, deadline)
            if isinstance(answer, bytes):
                return answer
            url = self._allowed(_joined(url.url, answer))
        raise RowError(Reason.IMAGE_UNAVAILABLE, f"{location} was redirected more than {_MAX_REDIRECTS} times")

    def _allowed(self, url: str) -> Url:
        # The same parser as the connection's own, and its output goes to the connection: what is checked is called.
        try:
            parts = parse_url(url)
        except LocationParseError:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(url)} is not a URL that names a host") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(url)} is not an http(s) URL that names a host")
        if parts.auth is not None:
            raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(url)} has a user name in it; those are never sent")
        if not self._hosts.may_be_named(parts.scheme, parts.host, parts.port):
            raise RowError(
                Reason.IMAGE_FORBIDDEN,
                f"{shown(url)}: the host {shown(parts.netloc or '')} is not in the allowed hosts; name it in "
                "image_hosts to fetch from it",
            )
        return parts._replace(fragment=None, path=parts.path or "/")

    def _get_unless_dead(self, url: Url, deadline: Deadline) -> bytes | str:
        host = url.netloc or ""
        self._dead_hosts.check(host)
        try:
            answer = self._get(url, deadline)
        except _NoAnswer:
            self._dead_hosts.failed(host)
            raise
        except RowError:
            self._dead_hosts.answered(host)
            raise
        self._dead_hosts.answered(host)
        return answer

    def _get(self, url: Url, deadline: Deadline) -> bytes | str:
        """Return the body, or where the host redirects to, trying again as long as that may help."""
        # urllib3 would follow retries itself, but reads the bodies of the failed answers whole, however long.
        retries = _BoundedRetry(total=3, backoff_factor=0.25, backoff_jitter=0.25, status_forcelist=_TRY_AGAIN)
        while True:
            response: urllib3.BaseHTTPResponse | None = None
            failure: HTTPError | None = None
            about_the_host = True
            try:
                response = self._open(url, deadline)
                if response.status not in _TRY_AGAIN:
                    return self._answer(url.url, response)
                problem = f"HTTP status {response.status}"
                about_the_host = response.status in _ABOUT_THE_HOST
            except (NewConnectionError, ProtocolError, TimeoutError) as error:
                failure, problem = error, _named(error)
                about_the_host = response is None or isinstance(error, TimeoutError)
            except HTTPError as error:  # a bad certificate, a header that is none: the same at the next try
                kind = _NoAnswer if response is None else _Unavailable
                raise kind(f"{shown(url.url)}: {_named(error)}") from None
            except socket.gaierror as error:
                if error.errno != socket.EAI_AGAIN:
                    raise _NoAnswer(f"{shown(url.url)}: the host's name does not resolve") from None
                problem = "no name server answers for the host's name"
            finally:
                if response is not None:
                    response.close()
            left = self._time_left(url.url, deadline)
            try:
                retries = retries.increment("GET", shown(url.url), response=response, error=failure)
            except MaxRetryError:
                kind = _NoAnswer if about_the_host else _Unavailable
                raise kind(f"{shown(url.url)}: {problem}, at every try") from None
            asked = None if response is None else retries.get_retry_after(response)
            time.sleep(min(asked or retries.get_backoff_time(), left))

    def _open(self, url: Url, deadline: Deadline) -> urllib3.BaseHTTPResponse:
        """Send the request to the first of the host's addresses that takes a connection; return its answer."""
        assert url.scheme is not None
        assert url.host is not None
        port = url.port or DEFAULT_PORTS[url.scheme]
        name = url.host.removesuffix(".") if literal_address(url.host) is None else None
        headers = {**_HEADERS, "Host": (name or url.host) + (f":{url.port}" if url.port else "")}
        failure: HTTPError | None = None
        patience = min(self._silent_seconds, self._time_left(url.url, deadline))
        for address in self._resolver.addresses(url.host, port, url.url, patience):
            # The name stays in the TLS handshake and is what the certificate must be for.
            pool = self._pools.connection_from_host(
                str(address), port, url.scheme, pool_kwargs={"server_hostname": name}
            )
            connect_seconds = min(_MAX_CONNECT_SECONDS, self._silent_seconds, self._time_left(url.url, deadline))
            try:
                with deadline.kept():
                    response = pool.urlopen(
                        "GET",
                        url.request_uri,
                        headers=headers,
                        redirect=False,
                        retries=False,
                        timeout=Timeout(connect=connect_seconds, read=self._silent_seconds),
                        preload_content=False,
                    )
            except (NewConnectionError, ConnectTimeoutError) as error:
                failure = error
            else:
                if failure is not None:
                    self._resolver.prefer(url.host, address)
                return response
        assert failure is not None  # there is an address, or the resolver would have raised
        raise failure

    def _answer(self, url: str, response: urllib3.BaseHTTPResponse) -> bytes | str:
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
        return self._body(url, response)

    def _body(self, url: str, response: urllib3.BaseHTTPResponse) -> bytes:
        # The announced length is only a hint (and absent from chunked answers), so what arrives is counted.
        body = bytearray()
        while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
            body += chunk
            if len(body) > self._max_bytes:
                raise RowError(
                    Reason.IMAGE_TOO_LARGE, f"{shown(url)} has more than the {self._max_bytes:,} bytes accepted"
                )
        return bytes(body)

    def _time_left(self, url: str, deadline: Deadline) -> float:
        """Return how many seconds are left, more than none; raise :class:`RowError` if there are none."""
        if (left := deadline.left()) > 0:
            return left
        raise _NoAnswer(f"{shown(url)} was not complete after {self._whole_seconds:g} seconds")


class _BoundedRetry(Retry):
    """urllib3's retry policy, for hosts that ask for too much patience or in words that are no number or date."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except (InvalidHeader, ValueError, OverflowError):  # numbers of thousands of digits, years that do not exist
            return None
        return None if seconds is None else min(seconds, _MAX_RETRY_AFTER_SECONDS)


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError:  # brackets that are not an IPv6 address
        raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(url)} redirects to {shown(target)}, which is no URL") from None


def _named(error: HTTPError) -> str:
    # The texts of urllib3's errors repeat the URL, with its query; the class says what happened.
    return type(error).__name__
