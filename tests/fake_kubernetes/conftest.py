"""The fake cluster that each of these tests has for itself, and the real clients that talk to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config

from tests.fake_kubernetes import FakeKubernetes, Image, Processes, fake_kubernetes
from tests.fake_kubernetes.manifests import IMAGE


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeKubernetes]:
    image = Image({"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"})
    with fake_kubernetes(tmp_path / "cluster", Processes({IMAGE: image})) as running:
        yield running


@pytest.fixture
def api(cluster: FakeKubernetes) -> Iterator[CoreV1Api]:
    with new_client_from_config(str(cluster.kubeconfig)) as client:
        yield CoreV1Api(client)
