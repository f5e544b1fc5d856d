"""Two runs at one output, of which the second comes at a certain moment of the first."""

from __future__ import annotations

from collections.abc import Callable

from clip_operator.storage import ObjectInfo, Storage, Unchanged


class MeetsAnotherRun(Storage):
    """Has a whole other run come in between, right before an object is written."""

    def __init__(self, suffix: str, other_run: Callable[[], object]) -> None:
        super().__init__()
        self._suffix = suffix
        self._other_run: Callable[[], object] | None = other_run

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        if uri.endswith(self._suffix) and self._other_run is not None:
            other_run, self._other_run = self._other_run, None
            other_run()
        return super().write(data, uri, only_if)
