"""Versions of images are looked up for few requests, and are those that reading gives."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_operator.images import ImageLoader, ImagePolicy, ImageVersions, identity_of
from clip_operator.storage import S3Access, Storage
from demo.object_store import ObjectStore
from tests.conftest import S3, own_bucket
from tests.faulty_store import Fault, FaultyStore, Kind, faulty_store
from tests.images.conftest import WebServer

CHUNK = 256


@pytest.fixture(scope="module")
def s3(store: ObjectStore) -> Iterator[S3]:
    """One bucket for all: it takes seconds to be filled."""
    with own_bucket(store) as made:
        yield made


@pytest.fixture(scope="module")
def names(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The images of the bucket, more than a listing has room for, in order."""
    folder = tmp_path_factory.mktemp("bucket") / "images"
    for number in range(1200):
        path = folder / f"{number // 400}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image %d" % number)
    s3.put_folder(folder, "data")
    return [f"{number // 400}/{number:04}.jpg" for number in range(1200)]


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyStore]:
    with faulty_store(s3.store.endpoint_url) as proxy:
        yield proxy


def looked_up(s3: S3, url: str, names: list[str]) -> list[str | None]:
    session = s3.storage.s3_access.session
    storage = Storage(S3Access(session, url))
    loader = ImageLoader(storage, ImagePolicy(root=f"s3://{s3.bucket}/data"))
    versions = ImageVersions(storage, loader)
    found: list[str | None] = []
    for start in range(0, len(names), CHUNK):
        found += versions.of([loader.locate(name) for name in names[start : start + CHUNK]])
    return found


def test_versions_in_a_bucket_are_those_that_reading_gives_at_a_request_for_hundreds(
    s3: S3, names: list[str], proxy: FaultyStore
) -> None:
    found = looked_up(s3, proxy.url, names)
    assert Counter(request.method for request in proxy.requests)["HEAD"] == 0
    assert len(proxy.requests) <= 8
    loader = ImageLoader(s3.storage, ImagePolicy(root=f"s3://{s3.bucket}/data"))
    for at in range(0, 1200, 100):
        assert found[at] == identity_of(loader.fetch_version(loader.locate(names[at]))[0])
    assert len(set(found)) == 1200
    assert None not in found


def test_a_few_images_among_very_many_are_not_listed_for(s3: S3, names: list[str], proxy: FaultyStore) -> None:
    """Each time a page is listed it answers for one of them; so that is given up."""
    few = names[::100]
    assert None not in looked_up(s3, proxy.url, few)
    methods = Counter(request.method for request in proxy.requests)
    assert methods["GET"] <= 4
    assert len(proxy.requests) <= len(few) + 4


def test_images_in_any_order_cost_little_more_than_a_look_at_each(s3: S3, names: list[str], proxy: FaultyStore) -> None:
    order = random.Random(5).sample(names, 500)
    assert None not in looked_up(s3, proxy.url, order)
    assert len(proxy.requests) <= 300


def test_images_that_are_not_there_have_no_version_and_the_others_have(s3: S3, names: list[str]) -> None:
    absent = [name + "x" for name in names[:300]]
    mixed = [name for pair in zip(names[:300], absent, strict=True) for name in pair]
    found = looked_up(s3, s3.store.endpoint_url, mixed)
    assert [version is None for version in found] == [False, True] * 300


def test_without_the_permission_to_list_single_images_are_looked_at(s3: S3, names: list[str]) -> None:
    denied = Fault(Kind.ACCESS_DENIED, when=lambda request: "list-type" in request.query)
    with faulty_store(s3.store.endpoint_url, [denied]) as proxy:
        assert None not in looked_up(s3, proxy.url, names[:300])
        assert Counter(request.method for request in proxy.requests) == {"GET": 1, "HEAD": 300}


def test_a_local_file_has_another_version_when_it_was_replaced(tmp_path: Path) -> None:
    loader = ImageLoader(Storage(), ImagePolicy(root=str(tmp_path)))
    image = tmp_path / "x.jpg"
    image.write_bytes(b"same")
    place = loader.locate("x.jpg")
    versions = ImageVersions(Storage(), loader)
    before = versions.of([place, place])
    assert before[0] is not None
    assert before == [identity_of(loader.fetch_version(place)[0])] * 2
    os.utime(image, (1, 1))
    assert versions.of([place]) != before[:1]


def test_a_link_out_of_the_root_has_no_version(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    loader = ImageLoader(Storage(), ImagePolicy(root=str(root)))
    assert ImageVersions(Storage(), loader).of([loader.locate("link.jpg")]) == [None]


def test_bytes_are_their_own_version_and_the_web_has_none(web: WebServer, tmp_path: Path) -> None:
    loader = ImageLoader(Storage(), ImagePolicy(root=str(tmp_path), image_hosts=(web.host,)))
    places = [loader.locate(b"bytes"), loader.locate("data:,bytes"), loader.locate(f"{web.url}/x.png"), None]
    one, same, of_web, of_nothing = ImageVersions(Storage(), loader).of(places)
    assert one == same == loader.locate(b"bytes").key
    assert of_web is None
    assert of_nothing is None
    assert not web.calls
