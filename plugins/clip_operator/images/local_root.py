"""The local folder that references are resolved against, and the only one that is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clip_operator.errors import Reason, RequestError, RowError
from clip_operator.images.location import ImageLocation, shown
from clip_operator.images.paths import resolve
from clip_operator.storage import StorageError

# Linux gives hold of a file without opening it, and tells where what is held lies.
_DESCRIPTORS = "/proc/self/fd"
_HOLDS = hasattr(os, "O_PATH") and Path(_DESCRIPTORS).is_dir()


class LocalRoot:
    """A folder on this machine; it may itself be reached through symbolic links.

    :param uri: a path or a ``file://`` URI.
    """

    def __init__(self, uri: str) -> None:
        try:
            path = file_uri_path(uri) if uri.lower().startswith("file://") else uri
        except ValueError as error:
            raise RequestError(f"the image root {shown(uri)} is not a local folder: {error}") from None
        # Both names of the root may stand before an absolute reference; locations use the real one, so that two
        # spellings of one file have one key.
        self._real = _with_slash(os.path.realpath(path))
        self._names = (_with_slash(os.path.normpath(Path(path).absolute())), self._real)

    def relative(self, reference: str) -> ImageLocation:
        """Resolve a relative path, without I/O; raise :class:`RowError`."""
        return ImageLocation(self._real + resolve(reference, reference))

    def absolute(self, path: str, reference: str) -> ImageLocation:
        """Resolve the absolute path that ``reference`` names, without I/O; raise :class:`RowError` outside the root."""
        resolved = "/" + resolve(path, reference)
        for name in self._names:
            if resolved.startswith(name):
                return ImageLocation(self._real + resolved[len(name) :])
        raise RowError(Reason.IMAGE_FORBIDDEN, f"{shown(reference)} is outside the image root {shown(self._real)}")

    def real_path(self, path: str) -> str:
        """Follow every symbolic link in the path of a location; raise :class:`RowError` outside the root."""
        return self._inside(os.path.realpath(path), path)

    @contextmanager
    def held(self, path: str) -> Iterator[tuple[str, str]]:
        """Yield a path to read the file of a location by, and its real path; raise :class:`RowError` outside the root.

        The file is held inside the block: whatever takes its place, or a folder's on the way, the first path leads to
        the very file that was looked at. To open the real path would follow links that were made since.
        """
        if not _HOLDS:
            yield (real := self.real_path(path)), real
            return
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)  # opens no device and no pipe
        except OSError as error:
            self.real_path(path)  # whether there is something outside is not told
            raise _why_not(path, error) from None
        try:
            held = f"{_DESCRIPTORS}/{descriptor}"
            real = self._inside(str(Path(held).readlink()), path)
            try:
                yield held, real
            except StorageError as error:
                error.args = (str(error).replace(held, real),)
                raise
        finally:
            os.close(descriptor)

    def _inside(self, real: str, path: str) -> str:
        if not real.startswith(self._real):
            raise RowError(
                Reason.IMAGE_FORBIDDEN, f"{shown(path)} leads out of the image root by a symbolic link to elsewhere"
            )
        return real


def _why_not(path: str, error: OSError) -> RowError | StorageError:
    if isinstance(error, PermissionError):
        return RowError(Reason.IMAGE_FORBIDDEN, f"the access to {shown(path)} was denied")
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return RowError(Reason.IMAGE_NOT_FOUND, f"there is no image at {shown(path)}")
    return StorageError(f"{path}: {error.strerror or error}")


def file_uri_path(uri: str) -> str:
    """Return the absolute path in a ``file://`` URI, percent-decoded; raise ``ValueError`` if it names none."""
    parts = urlsplit(uri)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError("a file:// URI that names another host")
    path = unquote(parts.path, errors="strict")
    if not path or "\0" in path:
        raise ValueError("a file:// URI without a path")
    return path


def _with_slash(folder: str) -> str:
    return folder.rstrip("/") + "/"
