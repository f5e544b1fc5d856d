"""Whole objects are the same through obstore as through boto3, in every S3 store that can be had here."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from clip_operator.storage import ObjectNotFound, ObjectTooLarge
from tests.conftest import S3
from tests.faulty_store import faulty_store
from tests.storage.s3.reading import clients, in_thread, reaching, with_time

pytestmark = pytest.mark.slow

NAMES = ["images/1.jpg", "a b/größe %2F+&=?#~.png", "a//b", "empty", *(f"many/{number}" for number in range(100))]


def test_whole_objects_are_what_boto3_reads(any_s3: S3) -> None:
    contents = {}
    for name in NAMES:
        content = b"" if name == "empty" else hashlib.shake_256(name.encode()).digest(20_000)
        contents[any_s3.put(name, content)] = content
    with faulty_store(any_s3.store.endpoint_url) as proxy:
        storage = reaching(any_s3.storage.s3_access, proxy)
        in_thread(storage.read, next(iter(contents)))
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(storage.read_version, contents))
        for uri, (info, data) in zip(contents, read, strict=True):
            assert data == contents[uri]
            assert with_time(info) == with_time(any_s3.storage.stat(uri))
        asked = clients(proxy)
        with pytest.raises(ObjectTooLarge):
            in_thread(storage.read, next(iter(contents)), 10)
        with pytest.raises(ObjectNotFound):
            in_thread(storage.read, f"s3://{any_s3.bucket}/nothing")
    assert asked.count("boto3") == 2, "the first one, and the key with two slashes"
    assert len(asked) == 1 + len(contents)
