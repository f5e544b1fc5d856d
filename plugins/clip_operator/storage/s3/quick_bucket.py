"""One bucket whose whole objects are read through obstore, at a fraction of boto3's processor time."""

from __future__ import annotations

import hashlib
import re
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import S3Store

from clip_operator.storage.objects import ObjectInfo, too_large
from clip_operator.storage.s3.client import S3Client
from clip_operator.storage.s3.pace import Pace
from clip_operator.storage.s3.quick_settings import client_options
from clip_operator.storage.s3.route import Route

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

_MD5 = re.compile(r"[0-9a-f]{32}")
_EPOCH = datetime.fromtimestamp(0, UTC)


class Doubt(Exception):
    """The answer is not what was asked for, or not surely."""


class QuickBucket:
    """Reads through obstore what boto3 has read at least one object of.

    :param s3: boto3's client, whose settings and credentials are used.
    :param route: how it has reached the bucket.
    :raises NoRoute: a setting cannot be kept.
    """

    def __init__(self, s3: S3Client, route: Route) -> None:
        self._s3 = s3
        self._route = route
        self._options = client_options(s3, route)
        # TLS guards the bytes; without it boto3 compares them with the store's checksum, which obstore cannot.
        is_checked = s3.boto3.meta.config.response_checksum_validation != "when_required"
        self._compares = is_checked and route.base_url.startswith("http://")
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._store: S3Store | None = None
        self._current()

    def read(self, uri: str, key: str, max_bytes: int | None) -> tuple[ObjectInfo, bytes]:
        """Return which version stands there, and all its bytes, by one request that is not tried again.

        :param key: the object's, a plain one.
        :raises ObjectTooLarge: it has more than ``max_bytes``.
        :raises Exception: for whatever reason, it could not be read, or may not be what was asked for.
        """
        answer = obstore.get(self._current(), key)
        meta = answer.meta
        size, etag = meta["size"], (meta["e_tag"] or "").strip('"')
        if meta["path"] != key or answer.range != (0, size) or not etag:
            raise Doubt("the answer's headers do not tell what was read")
        if max_bytes is not None and size > max_bytes:
            raise too_large(uri, size, max_bytes)
        data = self._body(answer, size)
        if self._compares and _MD5.fullmatch(etag) and hashlib.md5(data, usedforsecurity=False).hexdigest() != etag:
            raise Doubt("the bytes are not those that the ETag stands for")
        modified = meta["last_modified"]
        return ObjectInfo(uri, size, etag, None if modified == _EPOCH else modified), data

    def _body(self, answer: Any, size: int) -> bytes:
        pace = Pace(self._s3.timeout_seconds)
        chunks = []
        for chunk in answer.stream(min_chunk_size=1):  # as they come, so that a trickle is noticed
            pace.passed(len(chunk))
            chunks.append(chunk)
        data = b"".join(chunks)
        if len(data) != size:
            raise Doubt(f"{len(data)} of {size} bytes")
        return data

    def _current(self) -> S3Store:
        """Return the connection that signs with the credentials of now; boto3's session renews them."""
        credentials = None if self._route.access_key is None else self._s3.credentials()
        with self._lock:
            if self._store is None or credentials != self._credentials:
                self._store, self._credentials = _store(self._route, self._options, credentials), credentials
            return self._store


def _store(route: Route, options: ClientConfig, credentials: Any) -> S3Store:
    # As if every bucket were in the host's name: then the URL is this one and the key, whatever it is made of.
    settings: S3Config = {
        "endpoint": route.base_url,
        "aws_endpoint_url_s3": route.base_url,
        "virtual_hosted_style_request": True,
        "region": route.region or "us-east-1",
        "skip_signature": credentials is None,
        "s3_express": False,
        "request_payer": False,
        "unsigned_payload": False,
    }

    def given() -> S3Credential:
        return {
            "access_key_id": credentials.access_key,
            "secret_access_key": credentials.secret_key,
            "token": credentials.token,
            "expires_at": None,  # others are another store's
        }

    return S3Store(
        "bucket",
        config=settings,
        client_options=options,
        retry_config={"max_retries": 0},
        credential_provider=None if credentials is None else given,
    )
