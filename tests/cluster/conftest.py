"""What the tests on a cluster share. CONTRIBUTING.md has the variables that name it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from clip_operator.storage import S3Access, Storage
from demo.object_store import ObjectStore
from tests.cluster.api_server import ApiServer, way_to
from tests.cluster.cluster import GATE, KUBECONFIG, Cluster, cluster_of_the_environment, store_of_the_environment
from tests.cluster.scene import Scene
from tests.conftest import S3

if not KUBECONFIG:
    collect_ignore_glob = ["test_*.py"]

_numbers = itertools.count(1)


def pytest_report_header() -> str | None:
    """Say why nothing is collected."""
    return None if KUBECONFIG else "tests/cluster: left out, for CLIP_CLUSTER_KUBECONFIG names no cluster"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what needs a cluster."""
    item.add_marker("cluster")


@pytest.fixture(scope="session")
def store() -> ObjectStore:
    return store_of_the_environment()


@pytest.fixture(scope="session")
def cluster(store: ObjectStore) -> Iterator[Cluster]:
    found = cluster_of_the_environment()
    with found.furnished(store, GATE):
        yield found


@pytest.fixture(scope="session")
def bucket(store: ObjectStore, cluster: Cluster, shapes_dataset: Path) -> Iterator[S3]:
    """A bucket with the demo data set, which all tests of the session share."""
    session = boto3.session.Session(store.access_key, store.secret_key, region_name="us-east-1")
    made = S3(store.client(), Storage(S3Access(session, store.endpoint_url)), store, cluster.name)
    made.client.create_bucket(Bucket=made.bucket)
    made.put_folder(shapes_dataset, "data")
    yield made
    for page in made.client.get_paginator("list_objects_v2").paginate(Bucket=made.bucket):
        for item in page.get("Contents", []):
            made.client.delete_object(Bucket=made.bucket, Key=item["Key"])
    made.client.delete_bucket(Bucket=made.bucket)


@pytest.fixture
def api(cluster: Cluster, tmp_path: Path) -> Iterator[ApiServer]:
    with way_to(cluster.configuration, tmp_path) as way:
        yield way


@pytest.fixture
def scene(cluster: Cluster, bucket: S3, api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("AIRFLOW_CONN_STORE", bucket.store.airflow_connection)
    made = Scene(str(next(_numbers)), cluster, api, bucket)
    yield made
    for name in made.pods():  # whoever still watches one sees it go
        cluster.delete(name, grace_period_seconds=0)
