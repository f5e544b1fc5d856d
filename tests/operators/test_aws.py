"""An Airflow connection becomes S3 access here, and just what a child process needs of it there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clip_operator.errors import JobError
from clip_operator.operators.aws import aws_connection
from clip_operator.operators.image_clip_evaluator import ImageCLIPEvaluatorOperator
from clip_operator.operators.task_instance import connection_of, parameters_of
from clip_operator.storage import StorageError
from tests.conftest import S3
from tests.faulty_store import Fault, Kind, faulty_store

pytestmark = pytest.mark.every_airflow

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


def test_botocore_settings_of_the_connection_are_kept_here_and_become_variables_there(connection: Any) -> None:
    settings = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"max_attempts": 4, "mode": "adaptive"},
        "region_name": "eu-north-1",
    }
    found = aws_connection(connection(login="key", password="secret", extra={"config_kwargs": settings}), S3_URI)
    assert found.access.config is not None
    assert found.access.config.request_checksum_calculation == "when_required"
    assert found.environment() == {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_MAX_ATTEMPTS": "5",
        "AWS_RETRY_MODE": "adaptive",
        "AWS_DEFAULT_REGION": "eu-north-1",
    }


def test_a_botocore_setting_that_no_variable_expresses_is_not_lost_in_silence(connection: Any) -> None:
    settings = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 3}, "tcp_keepalive": True}
    found = aws_connection(connection(login="key", password="secret", extra={"config_kwargs": settings}), S3_URI)
    assert found.access.config is not None
    assert found.access.config.s3 == {"addressing_style": "path"}
    with pytest.raises(JobError, match="s3, tcp_keepalive in the AWS connection's config_kwargs cannot be passed"):
        found.environment()


def test_the_connections_settings_reach_the_store(connection: Any, s3: S3) -> None:
    settings = {"retries": {"total_max_attempts": 2}, "request_checksum_calculation": "when_required"}
    with faulty_store(s3.store.endpoint_url, [Fault(Kind.INTERNAL_ERROR, times=2)]) as proxy:
        extra = {"endpoint_url": proxy.url, "region_name": "us-east-1", "config_kwargs": settings}
        name = connection(login=s3.store.access_key, password=s3.store.secret_key, extra=extra)
        storage = aws_connection(name, S3_URI).storage()
        with pytest.raises(StorageError, match="through 2 tries"):
            storage.write(b"x", f"s3://{s3.bucket}/x")
        storage.write(b"x", f"s3://{s3.bucket}/x")
    assert not [name for request in proxy.requests for name in request.headers if name.startswith("x-amz-checksum")]


def test_tls_verification_that_is_switched_off_is_not_lost_in_silence(connection: Any) -> None:
    found = aws_connection(connection(login="key", password="secret", extra={"verify": False}), S3_URI)
    assert found.access.verify is False
    with pytest.raises(JobError, match="verify=false"):
        found.environment()


def test_without_a_connection_boto3_is_left_alone() -> None:
    assert aws_connection(None, S3_URI).environment() == {}


@pytest.mark.parametrize(
    ("buckets", "is_used"),
    [
        (["pictures"], True),
        (["s3://pictures"], True),
        ("gs://other pictures", True),
        (["gs://pictures"], False),
        ([], False),
    ],
)
def test_buckets_of_images_alone_call_for_the_default_connection_where_they_are_in_s3(
    monkeypatch: pytest.MonkeyPatch, buckets: list[str] | str, is_used: bool
) -> None:
    extra = {"endpoint_url": "http://127.0.0.1:9"}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "extra": extra}))
    operator = ImageCLIPEvaluatorOperator(
        task_id="score", first_entry_file_name="/data/in.jsonl", cache_path="/data", image_buckets=buckets
    )
    found = connection_of(parameters_of(operator, operator.template_fields))
    assert found.access.endpoint_url == ("http://127.0.0.1:9" if is_used else None)


def test_local_files_need_no_default_connection() -> None:
    assert aws_connection("aws_default", ["/data/captions.jsonl"]).access.session is None
