"""Objects one after another into one file, for storage that cannot join them by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import islice
from typing import BinaryIO

from clip_operator.machine.threads import in_threads
from clip_operator.storage.objects import ObjectInfo

_CHUNK_BYTES = 1 << 20
_THREADS = 8
_AHEAD = 2 * _THREADS


def copy_all(sources: Sequence[ObjectInfo], opening: Callable[[ObjectInfo], BinaryIO], out: BinaryIO) -> None:
    """Append all the bytes of ``sources``, in their order, to ``out``.

    Small ones are read some way ahead, so that many of them do not cost a round trip each.
    """

    def read(source: ObjectInfo) -> bytes | None:
        if source.size > _CHUNK_BYTES:
            return None
        with opening(source) as file:
            return file.read()

    left = iter(sources)
    while some := list(islice(left, _AHEAD)):
        for source, data in zip(some, in_threads(_THREADS, read, some), strict=True):
            if data is not None:
                out.write(data)
                continue
            with opening(source) as file:
                shutil.copyfileobj(file, out, _CHUNK_BYTES)
