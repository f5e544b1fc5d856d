"""The image, built once for all tests that want it."""

from __future__ import annotations

import shutil

import pytest

from tests.conftest import missing_part
from tests.docker.images import build_image


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the scorer's image, in podman's storage."""
    if shutil.which("podman") is None:
        missing_part("podman")
    return build_image()
