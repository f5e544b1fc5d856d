"""What the tests of reading through two clients share: which of them asked, and a thread as images are fetched in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import boto3

from clip_operator.storage import ObjectInfo, S3Access, Storage
from tests.faulty_store import FaultyStore, Request
from tests.images.conftest import Answer, status
from tests.storage.conftest import within

T = TypeVar("T")

KEYS = boto3.session.Session("one", "secret", region_name="eu-west-7")
"""What a store that checks nothing is reached with."""


def clients(proxy: FaultyStore) -> list[str]:
    """Return who has asked for objects, by what each says of itself."""
    return [client_of(request) for request in proxy.requests if request.method == "GET"]


def client_of(request: Request) -> str:
    return "obstore" if str(request.headers["User-Agent"]).startswith("obstore/") else "boto3"


def by_obstore(request: Request) -> bool:
    return client_of(request) == "obstore"


def in_thread(action: Callable[..., T], *args: Any) -> T:
    """Do as the job does with images: not in the main thread, which leaves everything to boto3."""
    return within(60, lambda: action(*args))


def read_twice(storage: Storage, uri: str) -> list[bytes]:
    """Read an object by boto3, as the first of its bucket, and then by obstore, if the way is known."""
    return [in_thread(storage.read, uri) for _ in range(2)]


def reaching(access: S3Access, proxy: FaultyStore, **changes: Any) -> Storage:
    """Return a storage that knows no bucket yet, with the proxy as its store."""
    return Storage(dataclasses.replace(access, endpoint_url=proxy.url, **changes))


def with_time(info: ObjectInfo) -> tuple[Any, ...]:
    """Return all that is known of a version, and when it was written, by which versions are not compared."""
    return info.uri, info.size, info.etag, info.modified


def with_headers(body: bytes, **headers: str) -> Answer:
    """Return an object's answer, with other headers than usual."""
    return status(200, body, **{"Last_Modified": "Sat, 28 Nov 2026 19:50:45 GMT", "ETag": '"e"', **headers})
