"""Another process that takes over how S3 is reached asks the same of the same store in the same way."""

from __future__ import annotations

import pickle
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from clip_operator.errors import JobError
from clip_operator.storage import CredentialsError, S3Access, S3Settings, Storage, keys_of
from clip_operator.storage.s3.client import S3Client
from tests.conftest import S3


def taken_over(access: S3Access) -> S3Access:
    """Return the access as the other process has it; here it asks without a socket."""
    settings: S3Settings = pickle.loads(pickle.dumps(S3Settings.of(access)))
    return settings.access(lambda: keys_of(access))


SETTINGS: list[dict[str, Any]] = [
    {},
    {"retries": {"mode": "adaptive", "max_attempts": 3}},
    {"signature_version": UNSIGNED},
    {"region_name": "eu-central-1", "s3": {"addressing_style": "virtual"}},
    {"proxies": {"https": "http://127.0.0.1:1"}, "max_pool_connections": 7, "user_agent_extra": "x"},
    {"connect_timeout": 3, "read_timeout": 4, "request_checksum_calculation": "when_required"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings), "none"))
def test_settings_are_handed_over_whole(settings: dict[str, Any]) -> None:
    session = boto3.session.Session("key", "secret", region_name="us-west-2")
    access = S3Access(session, "http://127.0.0.1:9", verify=False, timeout_seconds=3, config=Config(**settings))
    here, there = (S3Client(each).boto3.meta for each in (access, taken_over(access)))
    assert there.endpoint_url == here.endpoint_url
    assert there.region_name == here.region_name
    for name in set(Config.OPTION_DEFAULTS) - {"user_agent"}:  # botocore writes into it where credentials are from
        assert getattr(there.config, name, None) == getattr(here.config, name, None), name
    assert taken_over(access).verify is False


def test_a_session_with_and_without_a_token_reads(s3: S3) -> None:
    uri = s3.put("a.txt", b"here")
    assert Storage(taken_over(s3.storage.s3_access)).read(uri) == b"here"
    access = S3Access(boto3.session.Session("k", "s", "token", region_name="us-east-1"))
    there = taken_over(access).session
    assert there is not None
    assert there.get_credentials().get_frozen_credentials()[:3] == ("k", "s", "token")


def test_without_a_session_botos_own_chain_is_used_there_too() -> None:
    assert taken_over(S3Access(endpoint_url="http://127.0.0.1:9")).session is None


def test_a_session_without_keys_has_none_there(monkeypatch: pytest.MonkeyPatch, s3: S3) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    access = S3Access(boto3.session.Session(region_name="us-east-1"), s3.store.endpoint_url)
    with pytest.raises(CredentialsError, match="no AWS credentials were found"):
        Storage(taken_over(access)).read(f"s3://{s3.bucket}/a.txt")


def test_keys_that_cannot_be_had_are_named() -> None:
    class Broken:
        def get_credentials(self) -> Any:
            raise OSError("the role is gone")

    with pytest.raises(JobError, match="could not be had or renewed: the role is gone"):
        keys_of(S3Access(Broken()))
