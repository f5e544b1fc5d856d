"""How many pixels may be in memory at once, whatever the number of threads that decode."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class PixelBudget:
    """A number of pixels that threads share. Who asks first is served first.

    :param pixels: the most pixels held at once, but for one image that alone has more: it is held while no other is.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._in_use = 0
        self._queue: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def held(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for ``pixels`` more, and hold them inside the block.

        A thread that holds pixels must not ask for more: it may wait for itself.
        """
        self._acquire(pixels)
        try:
            yield
        finally:
            self._release(pixels)

    def _acquire(self, pixels: int) -> None:
        turn = object()
        with self._changed:
            self._queue.append(turn)
            try:
                # Only the first in the queue may pass, or small images would overtake a large one for ever.
                self._changed.wait_for(lambda: self._queue[0] is turn and self._has_room_for(pixels))
                self._in_use += pixels
            finally:
                self._queue.remove(turn)
                self._changed.notify_all()

    def _release(self, pixels: int) -> None:
        with self._changed:
            self._in_use -= pixels
            self._changed.notify_all()

    def _has_room_for(self, pixels: int) -> bool:
        return self._in_use == 0 or self._in_use + pixels <= self._pixels
