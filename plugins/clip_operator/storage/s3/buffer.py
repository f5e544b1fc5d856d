"""The bytes of a part until they are sent: a small one's in memory, a large one's on the local disk."""

from __future__ import annotations

import tempfile
import threading
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from clip_operator.storage.disk import writing_to
from clip_operator.storage.s3.pace import PacedBody

_MOST_BYTES_IN_MEMORY = 16 << 20


class PartBuffer:
    """Room for one part, which several threads may fill.

    :param capacity: how many bytes it may have.
    """

    def __init__(self, capacity: int) -> None:
        self.size = 0
        self._lock = threading.Lock()
        self._file: BinaryIO
        if capacity <= _MOST_BYTES_IN_MEMORY:
            self._file = BytesIO()
        else:
            with self._writing():
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()

    def put(self, data: bytes | memoryview, position: int) -> None:
        """Put bytes at a place in the part.

        :raises StorageError: the disk is full.
        """
        with self._lock, self._writing():
            self._file.seek(position)
            self._file.write(data)
            self.size = max(self.size, position + len(data))

    def body(self, grace_seconds: float) -> PacedBody:
        """Return all of it as the body of a request."""
        return PacedBody(self._file, 0, self.size, grace_seconds)

    def close(self) -> None:
        """Give its room back."""
        self._file.close()

    @staticmethod
    def _writing() -> AbstractContextManager[None]:
        return writing_to(Path(tempfile.gettempdir()) / "part")
