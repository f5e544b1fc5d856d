"""What a folder of a bucket holds, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import obstore

from clip_operator.storage.cloud.client import CloudClient
from clip_operator.storage.cloud.names import is_supported

_PAGE = 1000


class Listing:
    """What obstore tells of the objects in a folder, below any number of others, as it is asked for.

    A page that breaks off is asked for again. In Google's store the listing then begins behind the last object; Azure
    takes no notice of where it is to begin, so there only the first page can be had again.

    :param prefix: the URI that errors name.
    :param folder: the folder's key; empty for the bucket.
    :param after: only what sorts behind this key is wanted, so far as the store can tell.
    """

    def __init__(self, client: CloudClient, prefix: str, folder: str, after: str) -> None:
        self._client = client
        self._prefix = prefix
        self._folder = folder
        self._after = after
        self._last = after
        self._pages: Any = None

    def __iter__(self) -> Iterator[Any]:
        while page := self._client.request_whole(self._prefix, self._next_page, self._can_begin_anew):
            self._last = page[-1]["path"]
            yield from page

    def _next_page(self) -> Sequence[Any] | None:
        pages, self._pages = self._pages, None
        if pages is None:
            offset = _offset(self._last)
            pages = iter(obstore.list(self._client.reading, self._folder or None, offset=offset, chunk_size=_PAGE))
        page: Sequence[Any] | None = next(pages, None)
        self._pages = pages  # unless it broke
        return page

    def _can_begin_anew(self) -> bool:
        return self._client.bucket.scheme == "gs" or self._last == self._after


def _offset(key: str) -> str | None:
    """Return the longest part of a key with which it begins and that obstore takes; None if there is none."""
    while key and not is_supported(key.removesuffix("/")):
        key = key[:-1]
    return key or None
