"""A stand-in for Kubernetes with an image that scores, and one that only looks like it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.fake_kubernetes import FakeKubernetes, Image, Processes, fake_kubernetes

# A `python` that does not score: it says that it has begun, and goes on until it is ended.
_ENDLESS = '#!/bin/sh\necho "INFO: Scoring on cpu"\nexec sleep 600\n'

StartCluster = Callable[[Path], AbstractContextManager[FakeKubernetes]]


@contextmanager
def _cluster(folder: Path) -> Iterator[FakeKubernetes]:
    endless = folder / "endless" / "python"
    endless.parent.mkdir()
    endless.write_text(_ENDLESS)
    endless.chmod(0o755)
    common = {"HOME": "/cache", "CLIP_OPERATOR_CACHE": "/cache/clip", "HF_HUB_OFFLINE": "1"}
    images = {
        "scorer:1": Image({"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **common}),
        "endless:1": Image({"PATH": f"{endless.parent}:/usr/bin:/bin"}),
    }
    with fake_kubernetes(folder / "kubernetes", Processes(images)) as running:
        yield running


@pytest.fixture(scope="session")
def start_cluster() -> StartCluster:
    """Start a cluster whose data is in a folder, for as long as the context lasts.

    Its images are ``scorer:1``, which scores, and ``endless:1``, which goes on until it is ended.
    """
    return _cluster
