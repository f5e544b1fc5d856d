"""Memory that the process of the model and its workers share: what each worker does, then places for pixels."""

from __future__ import annotations

import mmap
import os
import tempfile

_WORDS = 3  # 8 bytes each


class SharedMemory:
    """A file without a name, in memory where the system can do that, which all who have its descriptor can map.

    Not in ``/dev/shm``, of which containers have 64 MiB.

    :param workers: the most workers there will be.
    """

    def __init__(self, workers: int) -> None:
        self.first_slot = 8 * _WORDS * workers
        """Where the places for pixels begin."""
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("clip-operator-images", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        self.make_room(0)

    def make_room(self, slots_bytes: int) -> None:
        """Have so many bytes for pixels. The system provides its pages as they are written to.

        :raises OSError: it may not be that large.
        """
        size = self.first_slot + slots_bytes
        os.ftruncate(self.descriptor, size)
        self.view = mapped(self.descriptor, size)
        self._words = self.view[: self.first_slot].cast("Q")

    def status(self, index: int) -> WorkerStatus:
        """Return what a worker does, for it to write and others to read."""
        return WorkerStatus(self._words[_WORDS * index : _WORDS * (index + 1)])

    def close(self) -> None:
        """Let go of it. What still refers to its bytes may go on to."""
        os.close(self.descriptor)


def mapped(descriptor: int, size: int) -> memoryview:
    """Return the memory's first ``size`` bytes, to read and to write."""
    return memoryview(mmap.mmap(descriptor, size))


class WorkerStatus:
    """What one worker does.

    :param words: the three numbers of 8 bytes that say it.
    """

    def __init__(self, words: memoryview) -> None:
        self._words = words

    @classmethod
    def of(cls, descriptor: int, index: int) -> WorkerStatus:
        """Return that of one worker in the memory of this descriptor."""
        return cls(mapped(descriptor, 8 * _WORDS * (index + 1)).cast("Q")[_WORDS * index :])

    @property
    def number(self) -> int:
        """The number of the image that it decodes, or 0."""
        return int(self._words[0])

    @number.setter
    def number(self, number: int) -> None:
        self._words[0] = number

    @property
    def decoding_ns(self) -> int:
        """For how long it has decoded so far, in nanoseconds."""
        return int(self._words[1])

    @property
    def fetching_ns(self) -> int:
        """For how long it has had nothing to do but to wait for files, in nanoseconds."""
        return int(self._words[2])

    def decoded(self, nanoseconds: int) -> None:
        """Add to the time that it has decoded."""
        self._words[1] += nanoseconds

    def fetched(self, nanoseconds: int) -> None:
        """Add to the time that it has waited for files."""
        self._words[2] += nanoseconds
