"""Whose settings decide how S3 is reached, and credentials that end or renew themselves."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from clip_operator.storage import CredentialsError, S3Access, Storage, StorageError
from tests.conftest import S3
from tests.faulty_store import Fault, Kind, Request, faulty_store


@pytest.fixture
def aws_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def write(text: str) -> None:
        (tmp_path / "config").write_text(text)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    return write


def requests_of_a_failing_read(s3: S3, config: Config | None = None) -> list[Request]:
    with faulty_store(s3.store.endpoint_url, [Fault(Kind.INTERNAL_ERROR)]) as proxy:
        session = boto3.session.Session(s3.store.access_key, s3.store.secret_key, region_name="us-east-1")
        with pytest.raises(StorageError, match=r"kept failing \(InternalError\) through \d tries"):
            Storage(S3Access(session, proxy.url, config=config)).read(f"s3://{s3.bucket}/x")
    return proxy.requests


def retry_mode(request: Request) -> str:
    """Return what boto3 tells the store of its settings."""
    return str(request.headers["User-Agent"]).partition("cfg/retry-mode#")[2].split()[0]


@pytest.mark.usefixtures("no_pauses")
class TestRetries:
    def test_a_request_is_made_eight_times_unless_someone_says_otherwise(self, s3: S3) -> None:
        requests = requests_of_a_failing_read(s3)
        assert len(requests) == 8
        assert retry_mode(requests[0]) == "standard"

    def test_the_environment_decides(self, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
        requests = requests_of_a_failing_read(s3)
        assert len(requests) == 2
        assert retry_mode(requests[0]) == "adaptive"

    def test_the_profile_decides(self, s3: S3, aws_config: Callable[[str], None]) -> None:
        aws_config("[default]\nmax_attempts = 3\nretry_mode = legacy\n")
        requests = requests_of_a_failing_read(s3)
        assert len(requests) == 3
        assert retry_mode(requests[0]) == "legacy"

    def test_the_users_own_config_decides_over_all(self, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        config = Config(retries={"max_attempts": 3}, user_agent_extra="mine")
        for _ in range(2):
            requests = requests_of_a_failing_read(s3, config)
            assert len(requests) == 4, "botocore counts the tries after the first"
            assert str(requests[0].headers["User-Agent"]).endswith("mine")

    def test_a_mode_of_the_users_own_keeps_the_number_of_tries(self, s3: S3) -> None:
        requests = requests_of_a_failing_read(s3, Config(retries={"mode": "adaptive"}))
        assert len(requests) == 8
        assert retry_mode(requests[0]) == "adaptive"


_PROGRAM = """
import pathlib, sys
folder = pathlib.Path(__file__).parent
with (folder / "calls").open("a") as log:
    log.write("called\\n")
if len((folder / "calls").read_text().splitlines()) > int(sys.argv[1]):
    sys.exit("the single sign-on session is over")
print((folder / "answer.json").read_text())
"""


def credential_process(folder: Path, s3: S3, seconds: float, calls: int) -> str:
    """Return an AWS profile whose program gives credentials for so many seconds, and fails after so many calls."""
    (folder / "answer.json").write_text(
        json.dumps(
            {
                "Version": 1,
                "AccessKeyId": s3.store.access_key,
                "SecretAccessKey": s3.store.secret_key,
                "Expiration": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
            }
        )
    )
    program = folder / "credentials.py"
    program.write_text(_PROGRAM)
    command = f"{sys.executable} {program} {calls}"
    return f"[default]\nregion = us-east-1\ncredential_process = {command}\n"


def test_credentials_that_renew_themselves_go_on(s3: S3, tmp_path: Path, aws_config: Callable[[str], None]) -> None:
    aws_config(credential_process(tmp_path, s3, seconds=60, calls=100))
    storage = Storage(S3Access(endpoint_url=s3.store.endpoint_url))
    for number in range(3):
        storage.write(b"x", f"s3://{s3.bucket}/{number}")
    assert len(s3.object_keys()) == 3
    assert len((tmp_path / "calls").read_text().splitlines()) >= 3, "what ends within minutes is renewed before use"


def test_credentials_that_can_no_longer_be_renewed_end_in_words(
    s3: S3, tmp_path: Path, aws_config: Callable[[str], None]
) -> None:
    aws_config(credential_process(tmp_path, s3, seconds=60, calls=2))
    storage = Storage(S3Access(endpoint_url=s3.store.endpoint_url))
    uri = s3.put("x", b"x")
    message = r"could not be had or renewed.*the single sign-on session is over"
    with pytest.raises(CredentialsError, match=message):
        deque(map(storage.read, [uri] * 5))


def test_credentials_that_expire_on_the_way_end_in_words_that_name_the_way_out(s3: S3) -> None:
    uri = s3.put("x", b"x")
    expires = Fault(Kind.EXPIRED_TOKEN, when=lambda request: request.access_key == s3.store.access_key, skip=2)
    with faulty_store(s3.store.endpoint_url, [expires]) as proxy:
        session = boto3.session.Session(s3.store.access_key, s3.store.secret_key, region_name="us-east-1")
        storage = Storage(S3Access(session, proxy.url))
        assert [storage.read(uri), storage.read(uri)] == [b"x", b"x"]
        for action in (storage.read, storage.stat):
            with pytest.raises(
                CredentialsError, match=r"have expired.*kept for the next try.*renew themselves"
            ) as caught:
                action(uri)
            assert s3.store.secret_key not in str(caught.value)
