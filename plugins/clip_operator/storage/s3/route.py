"""The way on which boto3 has reached an object, for another client to go the same way.

What boto3 was told in arguments, environment, profile and session is not read again here: all of it has come together
in the request that boto3 has sent, and that the store has answered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

# What boto3 sends of itself with a GET. Anything else is a user's, or of a kind of bucket that has its own ways.
_USUAL_HEADERS = frozenset(
    {
        "accept-encoding",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "authorization",
        "user-agent",
        "x-amz-checksum-mode",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
        "x-amzn-trace-id",
    }
)
_SIGNATURE = re.compile(r"AWS4-HMAC-SHA256 Credential=(?P<key>.+)/\d{8}/(?P<region>[^/]+)/s3/aws4_request, ")
_BASE_URL = re.compile(r"https?://[^/?#@\\]+(?:/[\w~%-][\w.~%-]*)*", re.ASCII)
_UNUSUAL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class NoRoute(Exception):
    """No other client can go the way that boto3 goes, or not surely; the message says why."""


@dataclass(frozen=True)
class Route:
    """How the objects of a bucket are reached.

    :param base_url: what precedes the slash and the key in an object's URL: it may name the bucket in the host or in
        the path, or be an access point's.
    :param region: for the signature; empty where requests are not signed.
    :param access_key: who signs; None: nobody does.
    :param user_agent: how boto3 introduces itself.
    """

    base_url: str
    region: str
    access_key: str | None
    user_agent: str


def is_plain(key: str) -> bool:
    """Whether a key is taken as it is by clients that read paths: none of its parts is empty, ``.`` or ``..``."""
    return not _UNUSUAL.search(key) and all(part not in ("", ".", "..") for part in key.split("/"))


def route_to(key: str, request: Any) -> Route:
    """Return the way that a request of boto3's has gone.

    :param key: the object's, a plain one.
    :param request: what botocore has sent for it, an ``AWSPreparedRequest``.
    :raises NoRoute: there is something about it that another client might not do in the same way.
    """
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    region, access_key = "", None
    if "authorization" in headers:
        signature = _SIGNATURE.match(headers["authorization"])
        if signature is None:
            raise NoRoute("boto3 signs in another way than S3's version 4")
        region, access_key = signature["region"], signature["key"]
    if unusual := sorted(headers.keys() - _USUAL_HEADERS):
        raise NoRoute(f"boto3 sends the header {', '.join(unusual)}")
    base_url = request.url.removesuffix("/" + quote(key, safe="/~"))
    if request.method != "GET" or base_url == request.url or not _BASE_URL.fullmatch(base_url):
        raise NoRoute("the URL that boto3 asks for is an unusual one")
    if "-fips." in base_url:
        raise NoRoute("a FIPS endpoint asks for FIPS-validated TLS")
    return Route(base_url, region, access_key, headers.get("user-agent", ""))


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
