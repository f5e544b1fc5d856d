"""The same work on many things, in a few threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

ItemT = TypeVar("ItemT")
DoneT = TypeVar("DoneT")


def in_threads(most: int, work: Callable[[ItemT], DoneT], items: Iterable[ItemT]) -> list[DoneT]:
    """Return what ``work`` returns for each item, in their order; after its first failure begin no more of them.

    What was told to stop in the thread that calls was told so in the others.

    :param most: how many threads at the same time. A single item needs none.
    """
    items = list(items)
    if len(items) < 2:
        return [work(item) for item in items]
    contexts = [copy_context() for _ in items]
    with ThreadPoolExecutor(min(most, len(items)), thread_name_prefix="clip") as threads:
        try:
            return list(threads.map(lambda item, context: context.run(work, item), items, contexts))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
