"""How many pixels may be in memory at once, whatever the number of workers that decode."""

from __future__ import annotations

from collections import deque


class PixelBudget:
    """A number of pixels that holders, known by number, share. Who asks first is served first.

    Not for use by several threads at once.

    :param pixels: the most pixels held at once, but for one image that alone has more: it is held while no other is.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._held: dict[int, int] = {}
        self._queue: deque[tuple[int, int]] = deque()

    def ask(self, holder: int, pixels: int) -> None:
        """Put in a wish for ``pixels`` more; :meth:`grant` tells when there is room for it."""
        self._queue.append((holder, pixels))

    def release(self, holder: int) -> None:
        """Say that a holder holds nothing any more, and wishes for nothing."""
        self._held.pop(holder, None)
        self._queue = deque(wish for wish in self._queue if wish[0] != holder)

    def grant(self) -> list[int]:
        """Return the holders whose wishes are granted now, in the order in which they asked."""
        granted = []
        # Only the first in the queue may pass, or small images would overtake a large one for ever.
        while self._queue and self._has_room_for(self._queue[0][1]):
            holder, pixels = self._queue.popleft()
            self._held[holder] = pixels
            granted.append(holder)
        return granted

    def _has_room_for(self, pixels: int) -> bool:
        return not self._held or sum(self._held.values()) + pixels <= self._pixels
