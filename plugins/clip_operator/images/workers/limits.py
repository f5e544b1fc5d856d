"""What decoding one image may take of the processor and of memory, held by the kernel whatever the bytes are."""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

_STATM = "/proc/self/statm"
_PAGE = resource.getpagesize()

# What decoders need whatever an image's size is: their own state, buffers and tables; and what a thread that fetches
# may allocate meanwhile.
_FLOOR_BYTES = 192 << 20
_TIMES_THE_FILE = 2

# JPEG 2000 takes 25 bytes a pixel, the most of all formats.
_BYTES_A_PIXEL = 40


class DecodingLimits:
    """Sets this process's limits while it decodes.

    At more processor time than allowed the kernel ends the process by SIGXCPU. An allocation beyond the memory allowed
    fails: Python raises ``MemoryError``, and a decoder that does not look whether it got its memory ends the process.
    Where the kernel has no such limits (macOS has none for memory), none are set.

    :param seconds: of processor time.
    """

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._cpu_hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        self._memory_hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        self._statm = os.open(_STATM, os.O_RDONLY) if os.access(_STATM, os.R_OK) else None
        self._file_bytes = 0

    @contextmanager
    def held(self, file_bytes: int) -> Iterator[None]:
        """Hold the limits inside, for an image of so many bytes, whose pixels are not known yet."""
        self._file_bytes = file_bytes
        self._limit_memory(0)
        self._set(resource.RLIMIT_CPU, math.ceil(time.process_time()) + self._seconds, self._cpu_hard)
        try:
            yield
        finally:
            self._set(resource.RLIMIT_CPU, self._cpu_hard, self._cpu_hard)
            if self._statm is not None:
                self._set(resource.RLIMIT_AS, self._memory_hard, self._memory_hard)

    def allow_pixels(self, pixels: int) -> None:
        """Allow, inside :meth:`held`, what an image of so many pixels needs."""
        self._limit_memory(pixels)

    def _limit_memory(self, pixels: int) -> None:
        if self._statm is None:
            return
        now = int(os.pread(self._statm, 64, 0).split(b" ", 1)[0]) * _PAGE
        allowed = _FLOOR_BYTES + _TIMES_THE_FILE * self._file_bytes + _BYTES_A_PIXEL * pixels
        self._set(resource.RLIMIT_AS, now + allowed, self._memory_hard)

    @staticmethod
    def _set(what: int, soft: int, hard: int) -> None:
        if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
            soft = hard
        resource.setrlimit(what, (soft, hard))
