"""A remote object as a file: small ranges where it is read here and there, large ones ahead where it is read on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from clip_operator.storage.objects import ObjectInfo
from clip_operator.storage.reading import VersionReader

BUFFER_BYTES = 64 << 10
_RANGE_BYTES = 4 << 20
_AHEAD = 4

Fetch = Callable[[int, int], bytes]


class ReadAhead(VersionReader):
    """Reads a version by ranges.

    The first read at a place gets what it asked for, or a bit more. Each that goes on where the last range ended gets
    twice as much, and from the largest size on some more such ranges are fetched before they are asked for.

    :param info: the version.
    :param fetch: returns the bytes of a range (first byte, length) of it; called by several threads at the same time.
    """

    def __init__(self, info: ObjectInfo, fetch: Fetch) -> None:
        super().__init__(info)
        self._fetch = fetch
        self._start, self._range = 0, b""
        self._length = 0
        self._until = 0
        self._ahead: deque[tuple[int, int, Future[bytes]]] = deque()
        self._threads: ThreadPoolExecutor | None = None

    def fill(self, view: memoryview, start: int) -> int:
        if not self._start <= start < self._start + len(self._range):
            self._go_to(start, view.nbytes)
        offset = start - self._start
        count = min(view.nbytes, len(self._range) - offset)
        view[:count] = memoryview(self._range)[offset : offset + count]
        return count

    def close(self) -> None:
        if not self.closed:
            self._forget()
            if self._threads is not None:
                self._threads.shutdown(cancel_futures=True)
        super().close()

    def _go_to(self, start: int, wanted: int) -> None:
        """Hold a range that begins at ``start``, or one with it that was fetched ahead."""
        while self._ahead:
            at, stop, future = self._ahead[0]
            if start < at:
                break
            self._ahead.popleft()
            if start < stop:
                self._start, self._range = at, b""  # not two of them at once
                self._range = future.result()
                self._look_ahead()
                return
            future.cancel()
        read_on = start == self._start + len(self._range)
        self._forget()
        self._length = min(_RANGE_BYTES, max(wanted, 2 * self._length if read_on else BUFFER_BYTES))
        self._start, self._range = start, b""
        self._until = self.info.size if read_on else min(self.info.size, start + wanted)
        if self._length == _RANGE_BYTES:
            self._look_ahead(start)
            self._range = self._ahead.popleft()[2].result()
        else:
            self._range = self._fetch(start, min(self._length, self.info.size - start))

    def _look_ahead(self, start: int | None = None) -> None:
        """Have the next ranges fetched, from ``start`` or from the end of those that are on their way."""
        following = start
        if following is None:
            following = self._ahead[-1][1] if self._ahead else self._start + len(self._range)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_AHEAD, thread_name_prefix="clip-read-ahead")
        while following < self._until and len(self._ahead) < _AHEAD:
            stop = min(following + _RANGE_BYTES, self._until)
            self._ahead.append((following, stop, self._threads.submit(self._fetch, following, stop - following)))
            following = stop

    def _forget(self) -> None:
        for _, _, future in self._ahead:
            future.cancel()
        self._ahead.clear()
