"""The stores that the same tests are run against: SeaweedFS, as everywhere else, Ceph and moto."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.object_store import ObjectStore
from tests.conftest import S3, missing_part, own_bucket
from tests.stores import ceph, moto


@pytest.fixture(scope="session")
def ceph_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    if not ceph.is_installed():
        missing_part(f"Ceph (apt-get install {ceph.PACKAGES})")
    with ceph.object_gateway(tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture(scope="session")
def moto_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    if not moto.is_installed():
        missing_part(f"moto (pip install {moto.PACKAGES})")
    with moto.moto_server(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture(
    params=[
        pytest.param("store", id="SeaweedFS"),
        pytest.param("ceph_store", id="Ceph"),
        pytest.param("moto_store", id="moto"),
    ]
)
def any_s3(request: pytest.FixtureRequest) -> Iterator[S3]:
    """A bucket in one of the stores."""
    with own_bucket(request.getfixturevalue(request.param)) as made:
        yield made
        for key in made.object_keys():  # but for SeaweedFS, no store removes a bucket that holds something
            made.client.delete_object(Bucket=made.bucket, Key=key)
