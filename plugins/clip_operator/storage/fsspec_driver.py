"""Other object stores (``gs://``, ``abfs://``, …) through the fsspec driver that the user has installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clip_operator.storage.backend import AccessDenied, ObjectInfo, ObjectNotFound, ObjectTooLarge, StorageError

_PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "adl": "adlfs",
    "oss": "ossfs",
    "hdfs": "pyarrow",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "oci": "ocifs",
    "hf": "huggingface_hub",
}


class FsspecBackend:
    """One fsspec file system; credentials are the driver's own (environment, workload identity).

    :param scheme: the URI scheme, as in ``gs``.
    :raises StorageError: no driver for the scheme is installed; the message names the package that has it.
    """

    def __init__(self, scheme: str) -> None:
        try:
            import fsspec

            self._fs: Any = fsspec.filesystem(scheme)
        except (ImportError, ValueError) as error:
            package = _PACKAGES.get(scheme)
            fix = f"pip install {package}" if package else "use s3://, a local path, or a scheme that fsspec knows"
            raise StorageError(f"cannot open {scheme}:// URIs: no driver is installed ({error}); {fix}") from None
        except Exception as error:
            raise StorageError(f"cannot open {scheme}:// URIs: {error}") from None

    def stat(self, uri: str) -> ObjectInfo:
        with _translating(uri):
            return _info(uri, self._fs.info(uri))

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        info = self.stat(uri)
        if max_bytes is not None and info.size > max_bytes:
            raise ObjectTooLarge(f"{uri} has {info.size:,} bytes, more than the {max_bytes:,} accepted")
        with _translating(uri):
            return bytes(self._fs.cat_file(uri))

    def download(self, info: ObjectInfo, path: Path) -> None:
        with _translating(info.uri), self._fs.open(info.uri, "rb") as source, path.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        self._fs.invalidate_cache()
        if self.stat(info.uri) != info:
            raise StorageError(f"{info.uri} changed while it was being read; run the task again")

    def upload(self, path: Path, uri: str) -> ObjectInfo:
        # Object stores publish a PUT or a finished multipart upload at once, so put_file is all or nothing there.
        with _translating(uri):
            self._fs.put_file(str(path), uri)
            self._fs.invalidate_cache()
        return self.stat(uri)

    def delete(self, uri: str) -> None:
        with _translating(uri):
            if self._fs.exists(uri):
                self._fs.rm_file(uri)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        root = self._fs._strip_protocol(folder).rstrip("/")  # drivers list paths in their own form, without the scheme
        with _translating(prefix):
            self._fs.invalidate_cache()
            found = self._fs.find(folder) if self._fs.exists(folder) else []
        for path in sorted(found):
            uri = folder + self._fs._strip_protocol(path).removeprefix(root)
            if uri.startswith(prefix):
                yield self.stat(uri)  # a listing may spell an object's version in another way than its own info


def _info(uri: str, details: dict[str, Any]) -> ObjectInfo:
    if details.get("type") == "directory":
        raise ObjectNotFound(f"{uri} is a folder, not an object")
    size = int(details.get("size") or 0)
    version = next((details[key] for key in ("etag", "ETag", "md5Hash", "mtime", "created") if details.get(key)), "")
    return ObjectInfo(uri=uri, size=size, etag=f"{version}-{size:x}")


@contextmanager
def _translating(uri: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError:
        raise ObjectNotFound(f"{uri} does not exist") from None
    except PermissionError as error:
        raise AccessDenied(f"{uri}: access denied ({error})") from None
    except Exception as error:  # drivers raise their own vendors' exceptions, which have no common base
        raise StorageError(f"{uri}: {type(error).__name__}: {error}") from None
