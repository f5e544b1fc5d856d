"""Whole objects, the quick way: obstore asks once, and boto3 sees to whatever did not go well."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from clip_operator.storage.objects import ObjectInfo, ObjectTooLarge
from clip_operator.storage.s3.client import S3Client, split
from clip_operator.storage.s3.route import NoRoute, Route, is_plain, route_to

if TYPE_CHECKING:
    from clip_operator.storage.s3.quick_bucket import QuickBucket

log = logging.getLogger(__name__)

Version = tuple[ObjectInfo, bytes]

# Where obstore fails so often, one time after the other, at what boto3 then reads, it is asked only now and then.
_IN_A_ROW = 8
_REST = 1_000

# obstore's threads do not come along into a forked process, which would wait for them for ever, and its parent, too.
_process_of_obstore: int | None = None


class WholeReads:
    """Reads whole objects of any bucket.

    A bucket's first object is read by boto3, whose request shows the way. From then on obstore asks first, a single
    time; what it does not read well is read by boto3 from the beginning, which decides on further tries, and finds the
    words. The main thread's few reads are boto3's.

    :param s3: boto3's client.
    """

    def __init__(self, s3: S3Client) -> None:
        self._s3 = s3
        self._buckets: dict[str, _Bucket] = {}
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def read(self, uri: str, max_bytes: int | None, by_boto3: Callable[[], Version]) -> Version:
        """Return which version stands there, and all its bytes.

        :param by_boto3: reads the same through boto3.
        :raises StorageError: as ``by_boto3`` does.
        """
        name, key = split(uri)
        if not is_plain(key) or not _may_wait_for_obstore():
            return by_boto3()
        bucket = self._buckets.get(name)
        if bucket is None:
            version = by_boto3()
            self._learn(name, key)
            return version
        return bucket.read(uri, key, max_bytes, by_boto3)

    def _learn(self, name: str, key: str) -> None:
        """Find out how the bucket is read from now on, after boto3 has read an object of it in this thread."""
        with self._lock:
            if name in self._buckets:
                return
            try:
                quick = self._quick(route_to(key, self._s3.last_request()))
            except Exception as error:  # also because obstore is not installed, or botocore's insides are others
                self._buckets[name] = _Bucket(name, None)
                self._tell(_short(error))
            else:
                self._buckets[name] = _Bucket(name, quick)

    def _quick(self, route: Route) -> QuickBucket:
        global _process_of_obstore
        from clip_operator.storage.s3.quick_bucket import QuickBucket

        if route.access_key is not None and route.access_key != self._s3.credentials().access_key:
            raise NoRoute("boto3 signs with other credentials than its session's")
        _process_of_obstore = os.getpid()
        return QuickBucket(self._s3, route)

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            log.info(
                "whole objects in %s are read by boto3 alone, which takes more processor time than obstore: %s",
                self._s3.endpoint,
                reason,
            )


def _may_wait_for_obstore() -> bool:
    """Whether this thread can: the main one would not hear a signal meanwhile, and a fork would wait for ever."""
    return threading.current_thread() is not threading.main_thread() and _process_of_obstore in (None, os.getpid())


class _Bucket:
    """One bucket's reads, and how far obstore is trusted with them."""

    def __init__(self, name: str, quick: QuickBucket | None) -> None:
        self._name = name
        self._quick = quick
        self._failures = 0  # in a row, at what boto3 then read
        self._resting = 0  # so many reads more are boto3's at once
        self._told = False
        self._lock = threading.Lock()

    def read(self, uri: str, key: str, max_bytes: int | None, by_boto3: Callable[[], Version]) -> Version:
        if self._quick is None or self._rests():
            return by_boto3()
        try:
            version = self._quick.read(uri, key, max_bytes)
        except ObjectTooLarge:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # which is Rust's
                raise
            failure = _short(error)
        else:
            self._failures = 0
            return version
        version = by_boto3()
        self._failed(failure)
        return version

    def _rests(self) -> bool:
        if not self._resting:
            return False
        with self._lock:
            self._resting = max(0, self._resting - 1)
        return True

    def _failed(self, reason: str) -> None:
        with self._lock:
            self._failures += 1
            if self._failures < _IN_A_ROW:
                return
            self._resting = _REST
            is_news, self._told = not self._told, True
        if is_news:
            log.warning(
                "obstore failed %d times in a row at what boto3 then read from the bucket '%s'; the last time: %s. "
                "boto3 reads there now, which takes more processor time; obstore is tried once in %d reads",
                _IN_A_ROW,
                self._name,
                reason,
                _REST,
            )


def _short(error: BaseException) -> str:
    """Return what an error says, without the store's answer, in which there may be a signature or a token."""
    if isinstance(error, NoRoute):
        return str(error)
    status = re.search(r"status code: \d+[ \w]*", str(error))
    return status[0] if status else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
