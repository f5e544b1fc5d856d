"""An object of unknown size as its bytes come: parts are sent while the next one fills."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from clip_operator.storage.cloud.client import PART_BYTES
from clip_operator.storage.cloud.publication import Publication, fits_one_request
from clip_operator.storage.objects import ObjectInfo
from clip_operator.storage.writing import Draft

_WAITING_PARTS = 2


class _GivenUp(Exception):
    """The object is not to appear."""


class _Parts:
    """Hands parts from the thread that fills them to the one that sends them, which may be some behind."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._last = False
        self._given_up = False
        self._taken = True

    def put(self, part: bytes) -> bool:
        """Hand a part over, once there is room for it; return whether anybody takes it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < _WAITING_PARTS or not self._taken)
            self._waiting.append(part)
            self._changed.notify_all()
            return self._taken

    def end(self, *, given_up: bool = False) -> None:
        """Say that there are no more, or that those which were handed over are not wanted."""
        with self._changed:
            self._last, self._given_up = True, given_up
            self._changed.notify_all()

    def close(self) -> None:
        """Say that no more are taken."""
        with self._changed:
            self._taken = False
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._last)
                if self._given_up:
                    raise _GivenUp
                if not self._waiting:
                    return
                part = self._waiting.popleft()
                self._changed.notify_all()
            yield part


class CloudDraft(Draft):
    """The object under way. One that fits into a single request is put in one when it is published.

    :param publication: where and under which condition it will appear.
    """

    def __init__(self, publication: Publication) -> None:
        super().__init__()
        self._publication = publication
        self._held = bytearray()
        self._parts = _Parts()
        self._sending: Future[ObjectInfo] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def begin(self) -> None:
        self._publication.check()

    def append(self, data: memoryview) -> None:
        self._held += data
        if self._sending is None:
            if fits_one_request(len(self._held)):
                return
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="clip-draft")
            self._sending = self._thread.submit(self._send)
        while len(self._held) >= PART_BYTES:
            part = bytes(memoryview(self._held)[:PART_BYTES])
            del self._held[:PART_BYTES]
            if not self._parts.put(part):
                self._sending.result()  # it has failed, and says how

    def publish(self) -> ObjectInfo:
        if self._sending is None:
            return self._publication.put(self._held)
        if self._held:
            self._parts.put(bytes(self._held))
        self._parts.end()
        return self._sending.result()

    def discard(self) -> None:
        self._held.clear()
        self._parts.end(given_up=True)
        if self._thread is not None:
            self._thread.shutdown()

    def _send(self) -> ObjectInfo:
        try:
            return self._publication.put_parts(lambda: iter(self._parts))
        finally:
            self._parts.close()
