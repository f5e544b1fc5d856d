"""What is particular to S3, against a real S3 server: errors in words, whatever the request was."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from clip_operator.storage import CredentialsError, ObjectInfo, ObjectNotFound, S3Access, Storage, StorageError
from tests.conftest import S3

SECRET = "a-secret-that-no-message-may-hold"

Action = Callable[[Storage, str, Path], Any]

ACTIONS: dict[str, Action] = {
    "stat": lambda storage, uri, _: storage.stat(uri),
    "find": lambda storage, uri, _: storage.find(uri),
    "read": lambda storage, uri, _: storage.read(uri),
    "download": lambda storage, uri, folder: storage.download(ObjectInfo(uri, 1, "e"), folder / "copy"),
    "write": lambda storage, uri, _: storage.write(b"x", uri),
    "delete": lambda storage, uri, _: storage.delete(uri),
    "list": lambda storage, uri, _: list(storage.list(uri)),
}
every_action = pytest.mark.parametrize("act", ACTIONS.values(), ids=ACTIONS.keys())


def storage_of(access_key: str, secret_key: str, endpoint_url: str) -> Storage:
    session = boto3.session.Session(access_key, secret_key, region_name="us-east-1")
    return Storage(S3Access(session, endpoint_url))


@pytest.mark.parametrize("size", [8, 20 << 20])
def test_the_etag_is_the_servers_own_and_the_same_after_upload_in_stat_and_in_the_list(
    s3: S3, tmp_path: Path, size: int
) -> None:
    content = hashlib.shake_256(b"seed").digest(size)
    (tmp_path / "x").write_bytes(content)
    uri = f"s3://{s3.bucket}/x"

    written = s3.storage.upload(tmp_path / "x", uri)

    head = s3.client.head_object(Bucket=s3.bucket, Key="x")
    assert f'"{written.etag}"' == head["ETag"]
    assert [written] == list(s3.storage.list(uri))
    assert s3.storage.stat(uri) == written
    assert s3.get(uri) == content
    assert ("-" in written.etag) is (size > 1 << 20), "a large object is uploaded in parts"


def test_a_list_goes_on_past_the_thousand_objects_of_one_page(s3: S3) -> None:
    names = [f"x/{number:04}" for number in range(1001)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: s3.put(name, b""), names))
    assert [info.uri for info in s3.storage.list(f"s3://{s3.bucket}/x/")] == [f"s3://{s3.bucket}/{n}" for n in names]


def test_s3a_uris_are_the_same_objects(s3: S3) -> None:
    s3.put("a/x", b"1")
    assert s3.storage.read(f"s3a://{s3.bucket}/a/x") == b"1"
    assert [info.uri for info in s3.storage.list(f"s3a://{s3.bucket}/a/")] == [f"s3a://{s3.bucket}/a/x"]


@every_action
def test_a_bucket_that_does_not_exist_is_named_and_is_no_missing_object(s3: S3, tmp_path: Path, act: Action) -> None:
    with pytest.raises(StorageError) as caught:
        act(s3.storage, "s3://no-such-bucket/a/x.jsonl", tmp_path)
    assert f"the bucket 'no-such-bucket' does not exist at {s3.store.endpoint_url}" in str(caught.value)
    assert not isinstance(caught.value, ObjectNotFound), "or a job would go on with a bucket that is not there"


@every_action
def test_a_wrong_secret_key_is_said_to_be_refused(s3: S3, tmp_path: Path, act: Action) -> None:
    uri = s3.put("x", b"x")
    with pytest.raises(CredentialsError, match=r"credentials were refused \(SignatureDoesNotMatch\)") as caught:
        act(storage_of(s3.store.access_key, SECRET, s3.store.endpoint_url), uri, tmp_path)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@every_action
def test_an_unknown_access_key_is_said_to_be_refused(s3: S3, tmp_path: Path, act: Action) -> None:
    uri = s3.put("x", b"x")
    with pytest.raises(CredentialsError, match=r"credentials were refused \(InvalidAccessKeyId\)") as caught:
        act(storage_of("nobody", SECRET, s3.store.endpoint_url), uri, tmp_path)
    assert SECRET not in str(caught.value)


@every_action
def test_no_credentials_at_all_says_where_they_can_come_from(s3: S3, tmp_path: Path, act: Action) -> None:
    storage = Storage(S3Access(endpoint_url=s3.store.endpoint_url))
    with pytest.raises(CredentialsError, match="no AWS credentials were found; set aws_conn_id"):
        act(storage, f"s3://{s3.bucket}/x", tmp_path)


def test_half_of_the_credentials_is_said_to_be_half(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    with pytest.raises(CredentialsError, match=r"(?i)incomplete|partial"):
        Storage(S3Access(endpoint_url=s3.store.endpoint_url)).stat(f"s3://{s3.bucket}/x")


def test_credentials_and_endpoint_come_from_the_environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = s3.put("x", b"from the environment")
    for name, value in s3.store.environment.items():
        monkeypatch.setenv(name, value)
    assert Storage().read(uri) == b"from the environment"


@every_action
def test_an_endpoint_where_nobody_listens_is_tried_again_and_then_named(
    tmp_path: Path, no_pauses: list[float], act: Action
) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else can listen there either
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StorageError, match=f"cannot connect to the S3 endpoint {endpoint}") as caught:
            act(storage_of("someone", SECRET, endpoint), "s3://bucket/x", tmp_path)
    assert SECRET not in str(caught.value)
    assert len(no_pauses) >= 2, "a store that is only busy is asked again"
    assert sum(no_pauses) < 150  # seconds, with a botocore that waits for up to 20 between two tries, as 1.36 does


@pytest.mark.parametrize("endpoint", ["not a url", "ftp//x"])
def test_an_endpoint_that_is_no_url_is_said_to_be_wrong(endpoint: str) -> None:
    with pytest.raises(StorageError, match="cannot set up S3 access"):
        storage_of("someone", SECRET, endpoint).stat("s3://bucket/x")


def test_a_uri_without_a_bucket_is_refused(s3: S3) -> None:
    with pytest.raises(StorageError, match="needs a bucket, as in s3://bucket/name"):
        s3.storage.stat("s3:///x")


@every_action
def test_credentials_in_a_uri_are_refused_and_not_repeated(s3: S3, tmp_path: Path, act: Action) -> None:
    with pytest.raises(StorageError, match="an S3 URI holds no credentials") as caught:
        act(s3.storage, f"s3://someone:{SECRET}@{s3.bucket}/x", tmp_path)
    assert SECRET not in str(caught.value)


def test_a_bucket_name_that_s3_does_not_allow_is_an_error_in_words(s3: S3) -> None:
    with pytest.raises(StorageError, match="s3://not a bucket/x does not name a bucket"):
        s3.storage.stat("s3://not a bucket/x")
