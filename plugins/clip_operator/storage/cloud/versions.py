"""Ranges of one version of an object in Google Cloud Storage or Azure, and to where they are wanted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from clip_operator.machine.threads import in_threads
from clip_operator.storage.cloud.client import RANGE_BYTES, CloudClient
from clip_operator.storage.cloud.errors import REFUSED
from clip_operator.storage.objects import ObjectInfo, changed_while_read

_THREADS = 4

Put = Callable[[bytes, int], None]


@dataclass(frozen=True)
class CloudVersion:
    """One version of an object, of which ranges are read.

    :param key: the object's, in the client's bucket.
    """

    client: CloudClient
    key: str
    info: ObjectInfo

    def check(self) -> None:
        """Make sure that it still stands there.

        :raises ObjectChanged: another one does.
        """
        if self.client.stat(self.info.uri, self.key) != self.info:
            raise changed_while_read(self.info.uri)

    def read(self, start: int, length: int) -> bytes:
        """Return a range of it.

        :raises ObjectChanged: another version stands there.
        """
        data = bytearray(length)

        def put(chunk: bytes, position: int) -> None:
            data[position : position + len(chunk)] = chunk

        self.fetch(start, length, put, 0)
        return bytes(data)

    def fetch(self, start: int, length: int, put: Put, at: int) -> None:
        """Hand a range of it to ``put``, in pieces and with the position of each; a few requests at a time.

        :param at: the position of the range's first byte.
        :raises ObjectChanged: another version stands there.
        """
        if length == 0:  # no range without bytes can be asked for
            self.check()

        def fetch(begin: int) -> None:
            count = min(RANGE_BYTES, start + length - begin)
            put(self._get(begin, count), at + begin - start)

        in_threads(_THREADS, fetch, range(start, start + length, RANGE_BYTES))

    def _get(self, start: int, length: int) -> bytes:
        found = None
        with suppress(*REFUSED):
            found = self.client.get(self.info.uri, self.key, start, start + length, self.info.etag)
        # A store may ignore the condition in silence.
        if found is None or found[0] != self.info or len(found[1]) != length:
            self.check()  # says so, if it is gone
            raise changed_while_read(self.info.uri)
        return found[1]
