"""A bucket that is closed ends the job; objects that are denied one by one do not, however many they are.

The store is a plain HTTP server that answers as S3 documents it: a real S3 server cannot be made to change its mind.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import boto3
import pytest

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import AccessDenied, S3Access, Storage
from tests.images.conftest import WebServer, status
from tests.images.pictures import drawn, encoded

FILE = encoded(drawn())


class Bucket:
    """A bucket in which each object is there, denied or absent, as ``rule`` says of its key at that moment.

    :param may_list: without it, S3 denies objects that are not there.
    """

    def __init__(self, web: WebServer) -> None:
        self._web = web
        self.may_list = True
        self.rule: Callable[[str], int] = lambda _: 200
        self.looks: list[str] = []
        web.anything_else = self._answer

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        key = handler.path.partition("?")[0].removeprefix("/bucket/")
        code = self.rule(key)
        if handler.command == "HEAD":
            self.looks.append(key)
        if code == 404 and not self.may_list:
            code = 403
        name = {403: "AccessDenied", 404: "NoSuchKey"}.get(code)
        body = FILE if name is None else f"<Error><Code>{name}</Code></Error>".encode()
        if handler.command == "HEAD":
            status(code, b"", Content_Length=str(len(body)), ETag='"1"')(handler)
        else:
            status(code, body, ETag='"1"')(handler)


@pytest.fixture
def bucket(web: WebServer) -> Bucket:
    return Bucket(web)


@pytest.fixture
def loader(web: WebServer) -> ImageLoader:
    session = boto3.session.Session("some", "body", region_name="us-east-1")
    return ImageLoader(Storage(S3Access(session, web.url)), ImagePolicy("s3://bucket/data"))


def outcome(loader: ImageLoader, reference: str) -> Reason | None:
    """Return why an image cannot be had, or None; raise what ends the job."""
    try:
        loader.fetch(loader.locate(reference))
    except RowError as error:
        return error.reason
    return None


def test_one_denied_image_is_its_rows_matter(bucket: Bucket, loader: ImageLoader) -> None:
    bucket.rule = lambda key: 403 if key == "data/b.png" else 200
    assert [outcome(loader, f"{name}.png") for name in "abc"] == [None, Reason.IMAGE_FORBIDDEN, None]
    assert bucket.looks == []


def test_a_bucket_that_is_closed_while_the_job_runs_ends_it(bucket: Bucket, loader: ImageLoader) -> None:
    assert outcome(loader, "read.png") is None
    bucket.rule = lambda _: 403
    for name in "abc":
        assert outcome(loader, f"{name}.png") is Reason.IMAGE_FORBIDDEN
    with pytest.raises(AccessDenied, match=r"s3://bucket was closed .* s3://bucket/data/read\.png .* credentials"):
        outcome(loader, "d.png")
    assert bucket.looks == ["data/read.png"]


def test_a_bucket_that_was_never_open_ends_the_job_after_sixteen_images(bucket: Bucket, loader: ImageLoader) -> None:
    bucket.rule = lambda _: 403
    for number in range(15):
        assert outcome(loader, f"{number}.png") is Reason.IMAGE_FORBIDDEN
    assert bucket.looks == []
    with pytest.raises(AccessDenied, match=r"s3://bucket is closed to this job: the first 16 images"):
        outcome(loader, "15.png")


def test_a_run_of_forbidden_images_in_an_open_bucket_never_ends_the_job(bucket: Bucket, loader: ImageLoader) -> None:
    bucket.rule = lambda key: 403 if key.startswith("data/secret/") else 404 if "clip-operator" in key else 200
    for number in range(300):  # before anything could be read
        assert outcome(loader, f"secret/{number}.png") is Reason.IMAGE_FORBIDDEN
    assert len(bucket.looks) == 5  # after 16, 32, 64, 128 and 256
    assert outcome(loader, "read.png") is None
    bucket.looks.clear()
    for number in range(300):
        assert outcome(loader, f"secret/{number}.png") is Reason.IMAGE_FORBIDDEN
    assert bucket.looks == ["data/read.png"] * 7  # after 4, 8, … 256


def test_forbidden_images_of_a_folder_that_may_be_listed_do_not_end_the_job(
    bucket: Bucket, loader: ImageLoader
) -> None:
    bucket.rule = lambda key: 404 if key.startswith("data/.clip-operator") else 403  # a role bound to a prefix
    for number in range(40):
        assert outcome(loader, f"{number}.png") is Reason.IMAGE_FORBIDDEN


def test_where_every_twentieth_image_is_forbidden_hardly_anything_is_looked_at(
    bucket: Bucket, loader: ImageLoader
) -> None:
    bucket.may_list = False
    drawn_lots = random.Random(7)
    denied = {f"data/{number}.png" for number in range(2000) if drawn_lots.random() < 0.05}
    bucket.rule = lambda key: 403 if key in denied else 404 if "clip-operator" in key else 200
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: outcome(loader, f"{number}.png"), range(2000)))
    assert outcomes.count(Reason.IMAGE_FORBIDDEN) == len(denied) > 50
    assert len(bucket.looks) <= 2


def test_an_object_that_was_read_and_then_deleted_does_not_end_the_job(bucket: Bucket, loader: ImageLoader) -> None:
    assert outcome(loader, "read.png") is None
    bucket.rule = lambda key: 404 if key == "data/read.png" else 403
    for number in range(10):
        assert outcome(loader, f"{number}.png") is Reason.IMAGE_FORBIDDEN


def test_many_threads_end_the_job_once_the_bucket_is_closed(bucket: Bucket, loader: ImageLoader) -> None:
    reads = itertools.count()
    bucket.rule = lambda _: 200 if next(reads) < 200 else 403
    with ThreadPoolExecutor(16) as pool, pytest.raises(AccessDenied, match="was closed"):
        list(pool.map(lambda number: outcome(loader, f"{number}.png"), range(400)))


def test_each_bucket_is_judged_by_itself(bucket: Bucket, web: WebServer) -> None:
    session = boto3.session.Session("some", "body", region_name="us-east-1")
    policy = ImagePolicy("s3://bucket/data", buckets=("closed",))
    loader = ImageLoader(Storage(S3Access(session, web.url)), policy)
    bucket.rule = lambda key: 403 if key.startswith("/closed/") else 200
    for number in range(15):
        assert outcome(loader, f"{number}.png") is None
        assert outcome(loader, f"s3://closed/{number}.png") is Reason.IMAGE_FORBIDDEN
    with pytest.raises(AccessDenied, match="s3://closed is closed"):
        outcome(loader, "s3://closed/15.png")
