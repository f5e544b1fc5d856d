"""What the tests of storage share: one place of each kind, empty at first."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from clip_operator.storage import Storage
from tests.conftest import S3

KINDS = ("path", "file", "s3", "memory")


@dataclass(frozen=True)
class Place:
    """A folder, or a prefix, that only this test uses."""

    storage: Storage
    root: str
    kind: str

    def uri(self, name: str) -> str:
        """Return the URI of the object of that name: in a file:// URI quoted, elsewhere as it is."""
        return f"{self.root}/{quote(name) if self.kind == 'file' else name}"


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    kind: str = request.param
    if kind == "s3":
        s3: S3 = request.getfixturevalue("s3")
        return Place(s3.storage, f"s3://{s3.bucket}/some folder", kind)
    folder = tmp_path / "some folder"
    roots = {
        "path": str(folder),
        "file": f"file://{quote(str(folder))}",
        "memory": f"memory://{uuid.uuid4().hex}/some folder",
    }
    return Place(Storage(), roots[kind], kind)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder beside the place, for what is uploaded and downloaded."""
    folder = tmp_path / "local"
    folder.mkdir()
    return folder
