"""One door to every kind of storage, chosen by the URI's scheme."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from clip_operator.storage.backend import Backend, ObjectInfo, ObjectNotFound
from clip_operator.storage.local import LocalBackend
from clip_operator.storage.uri import scheme_of

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True)
class S3Access:
    """How S3 is reached.

    :param session: the boto3 session whose credentials and region are used; None for boto3's own chain
        (environment, profile, service account).
    :param endpoint_url: the endpoint, for stores other than AWS; None for ``AWS_ENDPOINT_URL(_S3)`` or AWS.
    :param verify: whether, or against which bundle, TLS certificates are verified; None leaves it to boto3.
    """

    session: boto3.session.Session | None = None
    endpoint_url: str | None = None
    verify: bool | str | None = None


class Storage:
    """Reads and writes objects by URI. One instance serves many threads and keeps its connections."""

    def __init__(self, s3_access: S3Access | None = None) -> None:
        self._s3_access = s3_access or S3Access()
        self._backends: dict[str, Backend] = {}
        self._lock = threading.Lock()

    def stat(self, uri: str) -> ObjectInfo:
        """Return the object's size and version, or raise :class:`ObjectNotFound`."""
        return self._backend(uri).stat(uri)

    def find(self, uri: str) -> ObjectInfo | None:
        """Return the object's size and version, or None if there is no such object."""
        try:
            return self.stat(uri)
        except ObjectNotFound:
            return None

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        """Return the whole object, or raise :class:`ObjectTooLarge` without reading past ``max_bytes``."""
        return self._backend(uri).read(uri, max_bytes)

    def write(self, data: bytes, uri: str) -> ObjectInfo:
        """Put ``data`` at ``uri``, all or nothing."""
        with TemporaryDirectory(prefix="clip-operator-") as folder:
            path = Path(folder) / "object"
            path.write_bytes(data)
            return self.upload(path, uri)

    def download(self, info: ObjectInfo, path: Path) -> None:
        """Copy exactly the version ``info`` to a local file; raise :class:`StorageError` if it has changed."""
        self._backend(info.uri).download(info, path)

    def upload(self, path: Path, uri: str) -> ObjectInfo:
        """Put a local file at ``uri``. Readers see the old object or the whole new one, never a part."""
        return self._backend(uri).upload(path, uri)

    def delete(self, uri: str) -> None:
        """Remove the object; it is not an error if there is none."""
        self._backend(uri).delete(uri)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose URI starts with ``prefix``, below any number of folders."""
        return self._backend(prefix).list(prefix)

    def _backend(self, uri: str) -> Backend:
        scheme = scheme_of(uri)
        with self._lock:
            if scheme not in self._backends:
                self._backends[scheme] = self._open(scheme)
            return self._backends[scheme]

    def _open(self, scheme: str) -> Backend:
        # Imported here: a job over local files needs neither boto3 nor fsspec.
        if scheme == "file":
            return LocalBackend()
        if scheme in ("s3", "s3a"):
            from clip_operator.storage.s3 import S3Backend

            access = self._s3_access
            return S3Backend(access.session, access.endpoint_url, access.verify)
        from clip_operator.storage.fsspec_driver import FsspecBackend

        return FsspecBackend(scheme)
