"""Which buckets a data set may name, against a real S3 server that would hand out all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import Reason, RequestError
from clip_operator.images import ImageLoader, ImagePolicy, bucket_of
from clip_operator.storage import BucketNotFound, Storage
from tests.conftest import S3
from tests.images.conftest import Refusal, load
from tests.images.pictures import drawn, encoded

FILE = encoded(drawn())
FORBIDDEN, NOT_FOUND = Reason.IMAGE_FORBIDDEN, Reason.IMAGE_NOT_FOUND


@pytest.fixture
def other_bucket(s3: S3) -> Iterator[str]:
    """A bucket that the credentials of the job may read as well as its own, with one image in it."""
    name = f"{s3.bucket}-other"
    s3.client.create_bucket(Bucket=name)
    s3.client.put_object(Bucket=name, Key="x.png", Body=FILE)
    yield name
    s3.client.delete_object(Bucket=name, Key="x.png")
    s3.client.delete_bucket(Bucket=name)


def loader_at(root: str, *buckets: str, storage: Storage | None = None) -> ImageLoader:
    return ImageLoader(storage or Storage(), ImagePolicy(root, buckets=buckets))


def test_a_data_set_in_one_bucket_reads_no_other_one(s3: S3, other_bucket: str, refused: Refusal) -> None:
    loader = loader_at(f"s3://{s3.bucket}/data", storage=s3.storage)
    for scheme in ("s3", "S3", "s3a", "S3A"):
        error = refused(FORBIDDEN, load, loader, f"{scheme}://{other_bucket}/x.png")
        assert f"s3://{other_bucket} " in error.detail
        assert "image_buckets" in error.detail


def test_a_bucket_that_is_listed_is_read(s3: S3, other_bucket: str) -> None:
    for entry in (other_bucket, f" {other_bucket} ", f"s3://{other_bucket}", f"s3a://{other_bucket}/"):
        loader = loader_at(f"s3://{s3.bucket}/data", entry, storage=s3.storage)
        for scheme in ("s3", "s3a"):
            assert load(loader, f"{scheme}://{other_bucket}/x.png").tobytes() == drawn().tobytes()


def test_the_roots_bucket_is_read_anywhere_and_a_forged_location_nowhere_else(
    s3: S3, other_bucket: str, refused: Refusal
) -> None:
    s3.put("elsewhere/x.png", FILE)
    loader = loader_at(f"s3a://{s3.bucket}/data", storage=s3.storage)
    load(loader, f"s3://{s3.bucket}/elsewhere/x.png")
    elsewhere = loader_at(f"s3://{other_bucket}", storage=s3.storage).locate("x.png")
    refused(FORBIDDEN, loader.fetch, elsewhere)


def test_a_local_data_set_reads_listed_buckets_only(tmp_path: Path, refused: Refusal) -> None:
    refused(FORBIDDEN, loader_at(str(tmp_path)).locate, "s3://bucket/x.png")
    loader = loader_at(str(tmp_path), "bucket", "gs://bucket-in-gcs", "az://container")
    assert loader.locate("s3://bucket/x.png").key == "s3://bucket/x.png"
    assert loader.locate("gcs://bucket-in-gcs/x.png").key == "gs://bucket-in-gcs/x.png"
    assert loader.locate("az://container/x.png").key == "az://container/x.png"
    refused(FORBIDDEN, loader.locate, "az://container@elsewhere.dfs.core.windows.net/x.png")
    for reference in (
        "gs://bucket/x.png",
        "az://bucket/x.png",
        "s3://bucket-in-gcs/x.png",
        "s3://bucke/x.png",
        "s3://bucket2/x.png",
    ):
        refused(FORBIDDEN, loader.locate, reference)


def test_a_listed_bucket_that_does_not_exist_is_the_jobs_error(s3: S3) -> None:
    loader = loader_at(f"s3://{s3.bucket}", "no-such-bucket", storage=s3.storage)
    with pytest.raises(BucketNotFound, match="no-such-bucket"):
        load(loader, "s3://no-such-bucket/x.png")


OTHER_BUCKETS = [
    "s3://{own}/../{other}/x.png",
    "s3://{own}/./../../{other}/x.png",
    "s3://{own}/data/../../{other}/x.png",
    "s3://{own}@{other}/x.png",
    "s3://{other}:x@{own}/x.png",
    "s3://{own}#@{other}/x.png",
    "s3://{own}?/../{other}/x.png",
    "s3://{own}\\..\\{other}/x.png",
    "s3://{own}/..\\{other}/x.png",
    "s3://{own}/data\\.\\..\\{other}\\x.png",
    "..\\..\\{other}\\x.png",
    "s3://{own}%2f..%2f{other}/x.png",
    "s3:///{other}/x.png",
    "s3:{other}/x.png",
    "s3://{other}%00/x.png",
    "../../{other}/x.png",
    "..//{other}/x.png",
    "data/../../../{other}/x.png",
    "//{other}/x.png",
    "/{other}/x.png",
    "file://{other}/x.png",
]


def test_no_spelling_of_a_uri_leads_to_another_bucket(s3: S3, other_bucket: str, refused: Refusal) -> None:
    loader = loader_at(f"s3://{s3.bucket}/data", storage=s3.storage)
    for reference in OTHER_BUCKETS:
        refused(FORBIDDEN, load, loader, reference.format(own=s3.bucket, other=other_bucket))


STRANGE_KEYS = [
    "..%2f..%2f{other}/x.png",
    "%2e%2e/%2e%2e/{other}/x.png",
    "C:\\{other}\\x.png",
    "\N{TWO DOT LEADER}/\N{TWO DOT LEADER}/{other}/x.png",
    "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/{other}/x.png",
    "..\N{FULLWIDTH SOLIDUS}..\N{FULLWIDTH SOLIDUS}{other}/x.png",
    "s3://{own}/%2e%2e/{other}/x.png",
    "s3://{own}/..%2f{other}/x.png",
    "s3://{own}//{other}/x.png",
    "s3://{own}/?/{other}/x.png",
    "s3://{own}/#/{other}/x.png",
]


def test_what_only_looks_like_climbing_is_a_key_in_the_own_bucket(s3: S3, other_bucket: str, refused: Refusal) -> None:
    loader = loader_at(f"s3://{s3.bucket}/data", storage=s3.storage)
    for reference in STRANGE_KEYS:
        named = reference.format(own=s3.bucket, other=other_bucket)
        assert loader.locate(named).key.startswith(f"s3://{s3.bucket}/")
        refused(NOT_FOUND, load, loader, named)


@pytest.mark.parametrize(
    "entry",
    [
        *("", " ", "s3://", "s3://bucket/key", "bucket/key", "bucket/", "*", "my-*", "s3://*", "arn:aws:s3:::bucket"),
        *(
            "https://bucket.s3.amazonaws.com",
            "abfs://box@account",
            "az://box@account",
            "Bucket",
            "b",
            "s3://u:secret@bucket",
            "a b",
        ),
    ],
)
def test_what_is_no_bucket_is_a_wrong_request(entry: str) -> None:
    with pytest.raises(RequestError, match=r"is not a bucket .* s3://name") as caught:
        ImagePolicy("s3://b", buckets=(entry,))
    assert "secret" not in str(caught.value)


def test_buckets_are_a_list() -> None:
    not_a_list: Any = "bucket"
    with pytest.raises(RequestError, match="list"):
        ImagePolicy("s3://b", buckets=not_a_list)


@pytest.mark.parametrize(
    ("uri", "bucket"),
    [
        ("s3://bucket/data/x.jsonl", "s3://bucket"),
        ("S3A://bucket/x.jsonl", "s3://bucket"),
        ("gcs://bucket/x.jsonl", "gs://bucket"),
        ("data/x.jsonl", None),
        ("file:///data/x.jsonl", None),
        ("az://box/x.jsonl", "az://box"),
        ("az://box@account/x.jsonl", None),
        ("abfs://box@account/x.jsonl", None),
        ("s3://arn:aws:s3:us-east-1:1:accesspoint:a/x.jsonl", None),
    ],
)
def test_the_bucket_of_a_data_set_is_known_where_it_has_one(uri: str, bucket: str | None) -> None:
    assert bucket_of(uri) == bucket
    ImagePolicy(uri, buckets=() if bucket is None else (bucket,))
