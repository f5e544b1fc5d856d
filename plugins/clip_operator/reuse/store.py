"""Packs of scores as objects: read, and written so that several jobs can write the same one."""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass

from clip_operator.errors import JobError
from clip_operator.proof.signing import SIGNATURE_BYTES, signed, verified
from clip_operator.reuse.pack import MOST_BYTES, MOST_LINKS, MOST_SCORES, CorruptPack, Pack, decode, encode
from clip_operator.storage import (
    AccessDenied,
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    Storage,
    StorageError,
    Unchanged,
    display,
    join,
)

log = logging.getLogger(__name__)

_MARKER = "score-store"
_MARKER_TEXT = b"airflow-clip-operator score store, version 1\n"

_PACK = re.compile(r"packs/[0-9a-f]{2}/[0-9a-f]{32}")

# What is read in one segment and written behind it; some 20 MB where all packs are of the usual size.
_MOST_REMEMBERED_PACKS = 128
_MOST_REMEMBERED_SCORES = 1 << 17

# Two jobs that write one pack at the same time: each of these tries takes in what the other has written.
_WRITING_TRIES = 4


def packs_prefix(uri: str) -> str:
    """Return what the URIs of all packs of a store begin with."""
    return join(uri, "packs/")


def is_pack(uri: str, store: str) -> bool:
    """Tell whether an object's name is that of a pack of the store."""
    return _PACK.fullmatch(uri.removeprefix(join(store, ""))) is not None


def is_store(storage: Storage, uri: str) -> bool:
    """Tell whether a job has ever made a score store there."""
    return storage.find(join(uri, _MARKER)) is not None


@dataclass
class StoredPack:
    """A pack, and the version of the object that it was read from; None if there is no object."""

    pack: Pack
    info: ObjectInfo | None = None


class ScoreStore:
    """A folder of packs. One instance serves many threads.

    When it is opened, whatever keeps it from working is the job's error. After that, it is there to save time and must
    not cost the job: at the first fault it is given up with a warning, and the rows are scored as ever.

    :param uri: a folder or prefix that nothing else is kept in.
    :raises JobError: it cannot be read, or there is none and it cannot be made, or it is of another version.
    """

    def __init__(self, storage: Storage, uri: str) -> None:
        self._storage = storage
        self._uri = uri
        self._may_read = self._may_write = True
        self._told: set[str] = set()
        self._remembered: OrderedDict[bytes, StoredPack] = OrderedDict()
        self._remembered_scores = 0
        self._lock = threading.Lock()
        marker = join(uri, _MARKER)
        try:
            try:
                found = storage.read(marker, max_bytes=1024)
            except ObjectNotFound:
                storage.write(found := _MARKER_TEXT, marker)
        except ObjectTooLarge:
            found = b""
        except StorageError as error:
            raise JobError(f"the score store {display(uri)} cannot be used: {error}") from None
        if found != _MARKER_TEXT:
            raise JobError(
                f"{display(marker)} is not of a score store that this version can use; give reuse another folder, or "
                "delete that one"
            )

    def read(self, name: bytes) -> StoredPack:
        """Return the pack of this name, as it was if it was met lately: an empty one if there is none that can be
        read.
        """
        with self._lock:
            remembered = self._remembered.get(name)
        if remembered is not None or not self._may_read:
            return remembered or StoredPack(Pack())
        try:
            return self._remember(name, self._read(name))
        except StorageError as error:
            self._give_up(error)
            return StoredPack(Pack())

    def write(self, name: bytes, stored: StoredPack) -> None:
        """Put a pack into the store, together with what others have put into it meanwhile.

        :param stored: the new pack, and the version of the object that it was made from.
        """
        try:
            for _ in range(_WRITING_TRIES):
                if not self._may_write:
                    return
                try:
                    uri = self._uri_of(name)
                    data = signed(encode(stored.pack), "pack of scores", uri)
                    info = self._storage.write(data, uri, Unchanged(stored.info))
                except ObjectChanged:
                    others = self._read(name)
                    stored = StoredPack(merged(stored.pack, others.pack), others.info)
                else:
                    self._remember(name, StoredPack(stored.pack, info))
                    return
        except AccessDenied as error:
            self._may_write = False
            self._tell_once("denied", f"No scores are added to the score store {display(self._uri)}: {error}")
        except StorageError as error:
            self._give_up(error)

    def _remember(self, name: bytes, stored: StoredPack) -> StoredPack:
        with self._lock:
            earlier = self._remembered.pop(name, None)
            self._remembered[name] = stored
            self._remembered_scores += len(stored.pack.scores) - len(earlier.pack.scores if earlier else ())
            while len(self._remembered) > _MOST_REMEMBERED_PACKS or self._remembered_scores > _MOST_REMEMBERED_SCORES:
                _, forgotten = self._remembered.popitem(last=False)
                self._remembered_scores -= len(forgotten.pack.scores)
        return stored

    def _read(self, name: bytes) -> StoredPack:
        uri = self._uri_of(name)
        try:
            info, data = self._storage.read_version(uri, MOST_BYTES + SIGNATURE_BYTES)
        except ObjectNotFound:
            return StoredPack(Pack())
        except ObjectTooLarge:
            info, data = self._storage.stat(uri), b""
        try:
            if (content := verified(data, "pack of scores", uri)) is None:
                raise CorruptPack("it is not signed with the key in CLIP_OPERATOR_SIGNING_KEY")
            return StoredPack(decode(content), info)
        except CorruptPack as error:
            self._tell_once(
                "corrupt", f"{display(uri)} is left out and will be written anew: {error}. Of others nothing is said"
            )
            return StoredPack(Pack(), info)

    def _uri_of(self, name: bytes) -> str:
        # Folders by the last byte, because the first is most often zero: stores that keep an index by prefix spread
        # the load, and file systems stay quick.
        return f"{packs_prefix(self._uri)}{name[-1:].hex()}/{name.hex()}"

    def _give_up(self, error: StorageError) -> None:
        self._may_read = self._may_write = False
        self._tell_once(
            "given up",
            f"The score store {display(self._uri)} is not used any more by this run, rows that it may know are scored: "
            f"{error}",
        )

    def _tell_once(self, what: str, message: str) -> None:
        with self._lock:
            told = what in self._told
            self._told.add(what)
        if not told:
            log.warning("%s", message)


def merged(new: Pack, old: Pack) -> Pack:
    """Return a pack with what is in either; of what there is not room for, the new pack's comes first."""
    scores = dict(new.scores)
    for key, score in old.scores.items():
        if len(scores) >= MOST_SCORES:
            break
        scores.setdefault(key, score)
    return Pack(scores, _links(new.after, old.after), _links(new.before, old.before))


def _links(new: dict[bytes, bytes], old: dict[bytes, bytes]) -> dict[bytes, bytes]:
    # Old ones first: data sets that take turns must not turn out each other's.
    return dict(list({**old, **new, **old}.items())[:MOST_LINKS])
