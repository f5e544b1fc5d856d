"""Drivers of fsspec whose stores tell more or less of an object's version than those that are installed here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class SilentStore(MemoryFileSystem):  # type: ignore[misc]  # it is untyped
    """Tells an object's size and nothing else, as a web server may; ``silent://``."""

    protocol = "silent"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace(f"{cls.protocol}://", "memory://", 1)))

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {key: value for key, value in super().info(path, **kwargs).items() if key != "created"}


class DigestingStore(SilentStore):
    """Tells a digest of the content, as S3 does of small objects; ``digesting://``."""

    protocol = "digesting"

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        found = super().info(path, **kwargs)
        if found["type"] == "file":
            found["etag"] = hashlib.sha256(self.cat_file(path)).hexdigest()
        return found


@contextmanager
def registered_drivers() -> Iterator[None]:
    """Let ``silent://`` and ``digesting://`` lead to stores that are empty at first."""
    with patch.object(MemoryFileSystem, "store", {}), patch.object(MemoryFileSystem, "pseudo_dirs", [""]):
        for driver in (SilentStore, DigestingStore):
            fsspec.register_implementation(str(driver.protocol), driver, clobber=True)
        yield
