"""An Airflow connection becomes S3 access here, and just what a child process needs of it there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clip_operator.errors import JobError
from clip_operator.operators.aws import aws_connection

S3_URI = ["s3://bucket/captions.jsonl"]


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    def define(**fields: Any) -> str:
        monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "aws", **fields}))
        return "store"

    return define


def test_a_connection_with_keys_is_passed_on_whole(connection: Any) -> None:
    extra = {"endpoint_url": "http://127.0.0.1:9", "region_name": "eu-west-1", "verify": "/ca.pem"}
    found = aws_connection(connection(login="key", password="secret", extra=extra), S3_URI)
    assert found.access.endpoint_url == "http://127.0.0.1:9"
    assert found.environment() == {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_CA_BUNDLE": "/ca.pem",
    }


def test_credentials_that_boto3_finds_itself_are_left_to_the_child(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = aws_connection(connection(extra={"endpoint_url": "http://127.0.0.1:9"}), S3_URI)
    assert found.environment() == {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}


def test_tls_verification_that_is_switched_off_is_not_lost_in_silence(connection: Any) -> None:
    found = aws_connection(connection(login="key", password="secret", extra={"verify": False}), S3_URI)
    assert found.access.verify is False
    with pytest.raises(JobError, match="verify=false"):
        found.environment()


def test_without_a_connection_boto3_is_left_alone() -> None:
    assert aws_connection(None, S3_URI).environment() == {}


def test_local_files_need_no_default_connection() -> None:
    assert aws_connection("aws_default", ["/data/captions.jsonl"]).access.session is None
