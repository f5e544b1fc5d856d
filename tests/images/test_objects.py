"""How answers of an object store become a row's or the job's error.

The store is a plain HTTP server that gives the answers S3 documents; a real S3 server cannot be made to deny or break
on demand.
"""

from __future__ import annotations

import boto3
import pytest

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import CredentialsError, S3Access, Storage, StorageError
from tests.images.conftest import Answer, Refusal, WebServer, load, status
from tests.images.pictures import drawn, encoded

FILE = encoded(drawn())


def s3_error(http_status: int, code: str) -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode()
    return status(http_status, body, Content_Type="application/xml")


@pytest.fixture
def loader(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> ImageLoader:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    session = boto3.session.Session("some", "body", region_name="us-east-1")
    web.answers["/bucket"] = status(200)
    storage = Storage(S3Access(session=session, endpoint_url=web.url))
    return ImageLoader(storage, ImagePolicy(root="s3://bucket/data", max_bytes=len(FILE)))


def test_an_object_is_loaded_by_relative_path_and_by_uri(web: WebServer, loader: ImageLoader) -> None:
    web.answers["/bucket/data/x%2B1.png"] = status(200, FILE, ETag='"1"')
    for reference in ("x+1.png", "s3://bucket/data/x+1.png"):
        assert load(loader, reference).tobytes() == drawn().tobytes()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (s3_error(404, "NoSuchKey"), Reason.IMAGE_NOT_FOUND),
        (s3_error(403, "AccessDenied"), Reason.IMAGE_FORBIDDEN),
        (status(200, bytes(len(FILE) + 1)), Reason.IMAGE_TOO_LARGE),
        (status(200, b""), Reason.IMAGE_UNREADABLE),
    ],
)
def test_what_is_wrong_with_one_object_is_the_rows_error(
    web: WebServer, loader: ImageLoader, answer: Answer, reason: Reason, refused: Refusal
) -> None:
    web.answers["/bucket/data/x.png"] = answer
    refused(reason, load, loader, "x.png")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(s3_error(403, "InvalidAccessKeyId"), CredentialsError), (s3_error(400, "NoIdea"), StorageError)],
)
def test_what_every_row_would_meet_is_the_jobs_error(
    web: WebServer, loader: ImageLoader, answer: Answer, error: type[Exception]
) -> None:
    web.answers["/bucket/data/x.png"] = answer
    with pytest.raises(error):
        load(loader, "x.png")


def test_missing_credentials_are_the_jobs_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    loader = ImageLoader(Storage(), ImagePolicy(root="s3://bucket"))
    with pytest.raises(CredentialsError):
        load(loader, "x.png")
