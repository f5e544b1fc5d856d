"""New objects as files to write to: the object appears when all of it is there, or not at all."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

from clip_operator.storage.objects import ObjectInfo

_BUFFER_BYTES = 1 << 20


class Draft(io.RawIOBase, ABC):
    """An object that is being written and that no reader sees yet."""

    def __init__(self) -> None:
        super().__init__()
        self._position = 0

    @abstractmethod
    def begin(self) -> None:
        """Look whether the object may be written, and make ready for its bytes."""

    @abstractmethod
    def append(self, data: memoryview) -> None:
        """Take the next bytes. They are the caller's again afterwards."""

    @abstractmethod
    def publish(self) -> ObjectInfo:
        """Make the object appear; return its version."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what there is of it. Called last of all, also after :meth:`publish`, which leaves nothing to do."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        with memoryview(data).cast("B") as view:
            self.append(view)
            self._position += view.nbytes
            return view.nbytes

    def tell(self) -> int:
        return self._position


class ObjectWriter(io.BufferedWriter):
    """A file to write to, as a context manager: leaving it in peace publishes the object.

    What closes the file within the context does not publish it, so it may be given to libraries that do.
    """

    info: ObjectInfo
    """The version that stands there; known when the context was left in peace."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft, _BUFFER_BYTES)
        self._draft = draft

    def __enter__(self) -> Self:
        try:
            self._draft.begin()
        except BaseException:
            self._draft.close()
            self._draft.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not self.closed:
                    self.flush()
                self.info = self._draft.publish()
        finally:
            self._draft.close()
            self._draft.discard()
