"""What the tests of storage share: one place of each kind, empty at first."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from urllib.parse import quote

import fsspec.config
import pytest

from clip_operator.storage import Storage
from tests.conftest import S3, Cloud

T = TypeVar("T")

KINDS = ("path", "file", "s3", "gs", "az", "memory", "local")  # the last two by drivers of fsspec
SERVERS = frozenset({"s3", "gs", "az"})


@dataclass(frozen=True)
class Place:
    """A folder, or a prefix, that only this test uses."""

    storage: Storage
    root: str
    kind: str

    def uri(self, name: str) -> str:
        """Return the URI of the object of that name: in a file:// URI quoted, elsewhere as it is."""
        return f"{self.root}/{quote(name) if self.kind == 'file' else name}"


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.server) if kind in SERVERS else kind for kind in KINDS])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    kind: str = request.param
    # A driver of real folders, unlike an object store's, makes them only if its user has set that.
    monkeypatch.setitem(fsspec.config.conf, "local", {"auto_mkdir": True})
    if kind == "s3":
        s3: S3 = request.getfixturevalue("s3")
        return Place(s3.storage, f"s3://{s3.bucket}/some folder", kind)
    if kind in SERVERS:
        cloud: Cloud = request.getfixturevalue(kind)
        return Place(cloud.storage, f"{cloud.root}/some folder", kind)
    folder = tmp_path / "some folder"
    roots = {
        "path": str(folder),
        "file": f"file://{quote(str(folder))}",
        "memory": f"memory://{uuid.uuid4().hex}/some folder",
        "local": f"local://{folder}",
    }
    return Place(Storage(), roots[kind], kind)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder beside the place, for what is uploaded and downloaded."""
    folder = tmp_path / "local"
    folder.mkdir()
    return folder


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Leave out the waiting between tries; give what it would have been, in seconds."""
    pauses: list[float] = []
    for module in ("botocore.endpoint", "tenacity.nap"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(sleep=pauses.append))
    return pauses


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return or raise what the action does, and fail if it is not over in that time."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"hangs: not over after {seconds} seconds"
    if errors:
        raise errors[0]
    return results[0]
