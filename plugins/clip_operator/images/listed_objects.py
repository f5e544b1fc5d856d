"""Versions of many objects in a bucket for few requests: lists them a thousand at a time where that answers more."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice, takewhile
from time import monotonic

from clip_operator.machine.threads import in_threads
from clip_operator.storage import AccessDenied, ObjectInfo, ObjectNotFound, Storage

_PAGE = 1000  # what S3 lists in one request

# A listing of a page takes this machine's processor about as long as so many looks at single objects.
_LISTING_COSTS = 20.0
_FIRST_CREDIT = 4 * _LISTING_COSTS
_MOST_CREDIT = 64 * _LISTING_COSTS
_CREDIT_A_LOOK = 1 / 16  # so that, however little they yield, listings make it at most this much dearer

_REMEMBERED = 1 << 17  # objects; some 40 MB
_REMEMBERED_SECONDS = 600.0  # an image that is replaced during a long run is noticed
_PAGES_REMEMBERED = 16

_LOOKING_THREADS = 32


class ListedObjects:
    """Looks up the versions of objects whose URIs come in some order, most often nearly that of a listing.

    A listing gives a thousand versions for one request, but they may be of objects that nobody asks for: a data set may
    name a few of a billion. So listings run on credit: each costs as much as twenty looks at single objects, and each
    answer that comes out of one pays back one. Where they do not pay, single objects are looked at.

    :param storage: lists and looks.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: OrderedDict[str, ObjectInfo] = OrderedDict()
        self._pages: deque[tuple[str, str]] = deque(maxlen=_PAGES_REMEMBERED)  # first and last URI
        self._credit = _FIRST_CREDIT
        self._since = monotonic()

    def find(self, uris: Sequence[str]) -> dict[str, ObjectInfo]:
        """Return the versions of those of the objects that exist and may be looked at.

        :param uris: in one bucket.
        :raises StorageError: the storage fails in a way that other objects would meet, too.
        """
        if monotonic() - self._since > _REMEMBERED_SECONDS:
            self._known.clear()
            self._pages.clear()
            self._since = monotonic()
        found: dict[str, ObjectInfo] = {}
        single: list[str] = []
        # In the order of UTF-8, as S3 lists, which is Python's order of code points.
        wanted = sorted(set(uris))
        # Asked for before anything is listed: what is there already pays for listing more.
        left = [uri for uri in wanted if not self._take(uri, found)]
        folder = _common_folder(left)
        for uri in left:
            if self._take(uri, found):
                continue
            if self._credit >= _LISTING_COSTS and not any(first <= uri <= last for first, last in self._pages):
                self._list(folder, uri)
                if self._take(uri, found):
                    continue
            single.append(uri)
        found.update(self._look_at(single))
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    def _take(self, uri: str, found: dict[str, ObjectInfo]) -> bool:
        info = self._known.get(uri)
        if info is None:
            return False
        self._known.move_to_end(uri)
        self._credit = min(self._credit + 1, _MOST_CREDIT)
        found[uri] = info
        return True

    def _list(self, folder: str, uri: str) -> None:
        """Remember a page of the listing of ``folder`` that begins at ``uri``."""
        self._credit -= _LISTING_COSTS
        before = uri[:-1]
        try:
            page = list(islice(self._storage.list(folder, start_after=before if before > folder else None), _PAGE))
        except AccessDenied:  # to list is a permission of its own, and scoring does not need it
            self._credit = float("-inf")
            return
        self._known.update((info.uri, info) for info in page)
        self._pages.append((uri, page[-1].uri if page else uri))

    def _look_at(self, uris: Sequence[str]) -> dict[str, ObjectInfo]:
        self._credit += _CREDIT_A_LOOK * len(uris)
        found = look_at(self._storage, uris)
        self._known.update(found)
        return found


def look_at(storage: Storage, uris: Sequence[str]) -> dict[str, ObjectInfo]:
    """Return the versions of those of the objects that exist and may be looked at, each looked at by itself."""

    def look(uri: str) -> ObjectInfo | None:
        try:
            return storage.stat(uri)
        except (ObjectNotFound, AccessDenied):
            return None

    return {info.uri: info for info in in_threads(_LOOKING_THREADS, look, uris) if info is not None}


def _common_folder(uris: Sequence[str]) -> str:
    """Return the innermost folder, with its slash, that all objects of the bucket are in.

    :param uris: sorted.
    """
    if not uris:
        return ""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(uris[0], uris[-1], strict=False))
    return "".join(character for character, _ in same).rpartition("/")[0] + "/"
