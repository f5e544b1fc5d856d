"""One version of a large object to a file: ranges of it, a few at a time."""

from __future__ import annotations

from pathlib import Path

from clip_operator.machine.threads import in_threads
from clip_operator.storage.disk import filling, receiving
from clip_operator.storage.s3.parts import THREADS, ByteRange, ranges_of
from clip_operator.storage.s3.ranges import Put, S3Version


def download(version: S3Version, path: Path) -> None:
    """Copy the whole version to ``path``; leave no file behind if that fails.

    :raises ObjectChanged: another one stands there now.
    """
    with receiving(path), filling(path, anew=True) as put:
        _fetch(version, 0, version.info.size, put, 0)


def download_range(version: S3Version, start: int, length: int, path: Path, at: int) -> None:
    """Copy a range of it into the file ``path``, from that file's byte ``at`` on, and leave the rest of it alone.

    :raises ObjectChanged: another one stands there now.
    """
    with filling(path) as put:
        _fetch(version, start, length, put, at)


def _fetch(version: S3Version, start: int, length: int, put: Put, at: int) -> None:
    if length == 0:
        version.check()

    def fetch(wanted: ByteRange) -> None:
        version.fetch(start + wanted.start, wanted.length, put, at + wanted.start)

    in_threads(THREADS, fetch, ranges_of(length))
