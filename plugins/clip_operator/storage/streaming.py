"""Objects one after another into one file, for storage that cannot join them by itself."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

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

    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="clip-read-ahead")
    waiting: deque[tuple[ObjectInfo, Future[bytes | None]]] = deque()

    def append_first() -> None:
        source, future = waiting.popleft()
        data = future.result()
        if data is not None:
            out.write(data)
            return
        with opening(source) as file:
            shutil.copyfileobj(file, out, _CHUNK_BYTES)

    try:
        for source in sources:
            waiting.append((source, threads.submit(read, source)))
            if len(waiting) == _AHEAD:
                append_first()
        while waiting:
            append_first()
    finally:
        threads.shutdown(cancel_futures=True)
