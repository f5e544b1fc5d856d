"""Tells a bucket that is closed to the job, which is the job's error, from objects that are denied one by one."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from clip_operator.images.location import shown
from clip_operator.storage import AccessDenied, ObjectNotFound, Storage, parent

# A look is decisive, so it may come early; it costs a request or two.
_DENIED_BEFORE_A_LOOK = 4
# Here it is not: without the permission to list, a store denies what does not exist, too.
_DENIED_BEFORE_A_FIRST_LOOK = 16
_DENIED_BETWEEN_LOOKS = 1024

# An object that is not there: who may list a bucket is told so, to all others S3 and GCS deny it. The name tells those
# who read the bucket's access log what it was for.
_ABSENT = ".clip-operator-looks-whether-it-may-read-here"


@dataclass
class _Bucket:
    last_read: str | None = None
    denied_in_a_row: int = 0


class ClosedBuckets:
    """Watches the reads of images in object stores. One instance serves many threads.

    After 4, 8, 16, … 1024, 2048, 3072, … images in a row that were denied, it looks again at the object that was read
    last. If that is denied now, too, the bucket was closed while the job ran. Where forbidden objects lie among others
    such rows are rare; where they lie together, however many, a look settles that they are the rows' matter.

    If nothing of the bucket could be read yet, it looks after 16, 32, … for an object that does not exist, at the top
    of the bucket and beside the image. To be told so in one of the places proves that the bucket is open to the job:
    its first rows may name forbidden objects, thousands of them. To be denied in both proves nothing by itself; 16
    images say the rest.

    :param storage: where to look.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def was_read(self, uri: str) -> None:
        """Say that an object could be read."""
        with self._lock:
            bucket = self._bucket(uri)
            bucket.last_read, bucket.denied_in_a_row = uri, 0

    def was_denied(self, uri: str) -> None:
        """Say that the access to an object was denied.

        :raises AccessDenied: its whole bucket is closed.
        :raises StorageError: a look fails in another way, as the next read would.
        """
        with self._lock:
            bucket = self._bucket(uri)
            bucket.denied_in_a_row += 1
            denied, last_read = bucket.denied_in_a_row, bucket.last_read
        if not _is_time_to_look(denied, last_read):
            return
        name = _bucket_uri(uri)
        if last_read is not None:
            if self._is_denied(last_read):
                raise AccessDenied(
                    f"the bucket {name} was closed to this job while it ran: {shown(last_read)} could be read before "
                    f"and is denied now, as the last {denied:,} images were. Check that the credentials are still "
                    f"valid and still allowed to read {name}"
                )
        elif self._is_denied(f"{name}/{_ABSENT}") and self._is_denied(f"{parent(uri)}/{_ABSENT}"):
            raise AccessDenied(
                f"the bucket {name} is closed to this job: the first {denied:,} images in it were denied, "
                f"{shown(uri)} among them. Check the credentials and what they may do: reading objects is needed, and "
                "so is listing them, because without it objects that do not exist are denied, too"
            )

    def _bucket(self, uri: str) -> _Bucket:
        return self._buckets.setdefault(_bucket_uri(uri), _Bucket())

    def _is_denied(self, uri: str) -> bool:
        try:
            self._storage.stat(uri)
        except AccessDenied:
            return True
        except ObjectNotFound:
            return False
        return False


def _is_time_to_look(denied: int, last_read: str | None) -> bool:
    if denied < (_DENIED_BEFORE_A_FIRST_LOOK if last_read is None else _DENIED_BEFORE_A_LOOK):
        return False
    return denied.bit_count() == 1 or denied % _DENIED_BETWEEN_LOOKS == 0


def _bucket_uri(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])
