"""One bucket through obstore: every request is bounded in time, tried again, and fails in words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.store import AzureStore, GCSStore

from clip_operator.storage.cloud import azure, gcs
from clip_operator.storage.cloud.access import CloudAccess
from clip_operator.storage.cloud.errors import FAILURES, REFUSED, Failure, explained, is_broken, not_set_up
from clip_operator.storage.cloud.names import Bucket
from clip_operator.storage.objects import ObjectInfo, ObjectNotFound, StorageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")

RANGE_BYTES = 4 << 20
"""The most that one request reads."""

SMALL_BYTES = 1 << 20
PART_BYTES = 8 << 20
"""How large the parts are of what is written in parts."""

ONE_REQUEST_BYTES = 32 << 20
"""The most that is written in one request, which alone these stores let a condition hold for."""

_CONNECT_SECONDS = 10
_DIRECTORY = "hdi_isfolder"  # how a hierarchical namespace of Azure's marks what is no object

# The process that has made the first request. The threads that carry requests out are not there in a fork of it.
_first_process: int | None = None


class CloudClient:
    """One bucket, for many threads.

    obstore has one limit of time for all requests of a store, so there are three stores: to read by ranges, where a
    silence ends a request, and to write little and much, where a store is silent until all of it was sent.

    :raises CredentialsError: the environment names no account, or credentials that cannot be used.
    """

    def __init__(self, bucket: Bucket, access: CloudAccess) -> None:
        self.bucket = bucket
        self._access = access
        self._config: Any
        if bucket.scheme == "az":
            self._config = azure.config_of(bucket, os.environ)
            self.endpoint = azure.endpoint_of(self._config)
        else:
            self._config = gcs.config_of(bucket, os.environ)
            self.endpoint = gcs.endpoint_of(self._config, os.environ)
        self.reading = self._store(RANGE_BYTES, read_timeout=timedelta(seconds=access.timeout_seconds))
        self._writing_little = self._store(SMALL_BYTES)
        self._writing_much = self._store(ONE_REQUEST_BYTES)
        self._is_there = False

    def writing(self, size: int) -> AzureStore | GCSStore:
        """Return the store by which so many bytes are written in one request."""
        return self._writing_little if size <= SMALL_BYTES else self._writing_much

    def stat(self, uri: str, key: str) -> ObjectInfo:
        """Return the object's size and version."""
        return self.look(uri, key)[0]

    def look(self, uri: str, key: str) -> tuple[ObjectInfo, dict[str, str], str | None]:
        """Return the object's size and version, its metadata, and what the store itself calls the version, if it does.

        :raises ObjectNotFound: there is none.
        """
        answer = self.request(uri, key, lambda: obstore.get(self.reading, key, options={"head": True}))
        attributes = {str(name): str(value) for name, value in answer.attributes.items()}
        if answer.meta["size"] == 0 and attributes.get(_DIRECTORY) == "true":
            raise ObjectNotFound(f"{uri} is a folder, not an object")
        return info_of(uri, answer.meta), attributes, answer.meta["version"]

    def get(
        self, uri: str, key: str, start: int, stop: int, etag: str | None = None
    ) -> tuple[ObjectInfo, bytes] | None:
        """Return the object's version and its bytes from ``start`` to ``stop``, or None where it ends before ``start``.

        :param etag: the version it must have, else obstore raises one of :data:`REFUSED`.
        """
        options: dict[str, Any] = {"range": (start, stop)}
        if etag and not etag.startswith("W/"):  # a weak one matches nothing
            options["if_match"] = f'"{etag}"'

        def once() -> tuple[ObjectInfo, bytes] | None:
            try:
                # A dict that is filled as needed is no TypedDict to mypy.
                answer = obstore.get(self.reading, key, options=options)  # type: ignore[arg-type]
                return info_of(uri, answer.meta), answer.bytes().to_bytes()
            except FAILURES as error:
                if Failure.of(error, key).is_past_the_end:
                    return None
                raise

        return self.request(uri, key, once)

    def request(self, uri: str, key: str, call: Callable[[], T]) -> T:
        """Return what ``call``, which asks obstore for something about ``uri``, returns.

        :raises StorageError: it failed at every try, or in a way that no other try would mend.
        """
        with self.errors_explained(uri, key):
            done = call()
        self._is_there = True
        return done

    def request_whole(self, uri: str, call: Callable[[], T], can_begin_anew: Callable[[], bool] = lambda: True) -> T:
        """Do as :meth:`request` does, but also call again where a body broke: of a listing obstore does not."""
        until = time.monotonic() + self._access.retry_seconds

        def attempt() -> T:
            for _ in range(self._access.max_tries - 1):
                try:
                    return call()
                except FAILURES as error:
                    if not is_broken(error) or not can_begin_anew() or time.monotonic() > until:
                        raise
            return call()

        return self.request(uri, "", attempt)

    @contextmanager
    def errors_explained(self, uri: str, key: str) -> Iterator[None]:
        """Turn what obstore raises about ``uri`` into a :class:`StorageError`, but for :data:`REFUSED`."""
        _check_process(self.endpoint)
        try:
            yield
        except REFUSED:
            raise
        except FAILURES as error:
            raise explained(uri, self.endpoint, self.bucket.name, self._telling(key, error)) from None

    def _telling(self, key: str, error: BaseException) -> Failure:
        """Return the failure, or one of the same status that says more: to a HEAD a store says nothing.

        A HEAD's missing object looks like a missing bucket, and refused credentials like a forbidden object.
        """
        failure = Failure.of(error, key)
        status = failure.status
        if failure.code or not key or status not in (401, 403, 404) or (status == 404 and self._is_there):
            return failure
        try:
            obstore.get(self.reading, key, options={"range": (0, 1)})
        except FAILURES as answer:
            told = Failure.of(answer, key)
            return told if told.status == status else failure
        return failure

    def _store(self, most_bytes: int, **limits: timedelta) -> AzureStore | GCSStore:
        """Return a store whose requests are given the time that so many bytes may take."""
        access = self._access
        seconds = access.timeout_seconds + most_bytes / access.least_bytes_per_second
        client: ClientConfig = {
            "timeout": timedelta(seconds=seconds),
            "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, access.timeout_seconds)),
            "allow_http": self.endpoint.startswith("http://"),
            **limits,  # type: ignore[typeddict-item]
        }
        retry: RetryConfig = {
            "max_retries": access.max_tries - 1,
            "retry_timeout": timedelta(seconds=access.retry_seconds),
        }
        try:
            if self.bucket.scheme == "az":
                return AzureStore(config=self._config, client_options=client, retry_config=retry)
            return GCSStore(config=self._config, client_options=client, retry_config=retry)
        except FAILURES as error:
            raise not_set_up(self.endpoint, error) from None


def info_of(uri: str, meta: Any) -> ObjectInfo:
    """Return the version that obstore tells of, in the one spelling that all its answers can be brought to.

    A listing of Azure's has the ETag without its quotes.
    """
    return ObjectInfo(uri, meta["size"], (meta["e_tag"] or "").strip('"'), meta["last_modified"])


def _check_process(endpoint: str) -> None:
    global _first_process
    if _first_process is None:
        _first_process = os.getpid()
    elif _first_process != os.getpid():
        raise StorageError(
            f"cannot reach {endpoint}: this process was forked from one that had reached such a store before, and has "
            "not its threads; let it be started anew (the start method 'spawn' or 'forkserver' of multiprocessing)"
        )
