"""One version of an object as a file to read from, in any order."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from typing import Any

from clip_operator.machine.stopping import check_not_stopped
from clip_operator.storage.objects import ObjectInfo


class VersionReader(io.RawIOBase):
    """What :class:`io.BufferedReader` needs of an object whose size is known. Its reads end where the work is to stop.

    :param info: the version.
    """

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__()
        self.info = info
        self._position = 0

    @abstractmethod
    def fill(self, view: memoryview, start: int) -> int:
        """Fill ``view``, which is not longer than what the object has from ``start`` on; return of how many bytes.

        Fewer than asked for are in order, none are not.
        """

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.info.size}[whence]
        if base + offset < 0:
            raise ValueError(f"there is nothing before the beginning of {self.info.uri}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        check_not_stopped()
        with memoryview(buffer).cast("B") as whole:
            length = max(0, min(whole.nbytes, self.info.size - self._position))
            with whole[:length] as view:
                count = self.fill(view, self._position) if length else 0
        self._position += count
        return count

    def readall(self) -> bytes:
        rest = bytearray(max(0, self.info.size - self._position))
        with memoryview(rest) as view:
            done = 0
            while done < len(rest):
                done += self.readinto(view[done:])
        return bytes(rest)
