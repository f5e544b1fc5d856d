"""The proxy passes on what it should, and each fault is what it says."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager, suppress
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from tests.conftest import S3
from tests.faulty_store import Fault, FaultyStore, Kind, Request, faulty_store

BODY = bytes(range(256)) * 100


def client_of(proxy: FaultyStore, s3: S3, access_key: str | None = None) -> Any:
    """Return a client that gives up at the first fault, so that a test sees what it was."""
    return boto3.client(
        "s3",
        endpoint_url=proxy.url,
        aws_access_key_id=access_key or s3.store.access_key,
        aws_secret_access_key=s3.store.secret_key,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=1),
    )


def with_faults(s3: S3, *faults: Fault, **more: Any) -> AbstractContextManager[FaultyStore]:
    return faulty_store(s3.store.endpoint_url, faults, **more)


def test_without_faults_every_request_is_carried_out_and_on_record(s3: S3) -> None:
    with with_faults(s3) as proxy:
        client = client_of(proxy, s3)
        client.put_object(Bucket=s3.bucket, Key="a b/größe", Body=BODY)
        assert client.get_object(Bucket=s3.bucket, Key="a b/größe", Range="bytes=1-3")["Body"].read() == BODY[1:4]
        head = client.head_object(Bucket=s3.bucket, Key="a b/größe")
        assert [item["Key"] for item in client.list_objects_v2(Bucket=s3.bucket, Prefix="a ")["Contents"]] == [
            "a b/größe"
        ]
        client.delete_object(Bucket=s3.bucket, Key="a b/größe")
    assert head["ContentLength"] == len(BODY)
    assert [(request.method, request.key, request.status) for request in proxy.requests] == [
        ("PUT", "a b/größe", 200),
        ("GET", "a b/größe", 206),
        ("HEAD", "a b/größe", 200),
        ("GET", "", 200),
        ("DELETE", "a b/größe", 204),
    ]
    assert {request.bucket for request in proxy.requests} == {s3.bucket}
    assert {request.access_key for request in proxy.requests} == {s3.store.access_key}
    assert proxy.requests[3].query["prefix"] == "a "
    assert s3.object_keys() == []


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Kind.SLOW_DOWN, "SlowDown"),
        (Kind.INTERNAL_ERROR, "InternalError"),
        (Kind.ACCESS_DENIED, "AccessDenied"),
        (Kind.NO_SUCH_KEY, "NoSuchKey"),
        (Kind.CLOCK_SKEWED, "RequestTimeTooSkewed"),
        (Kind.EXPIRED_TOKEN, "ExpiredToken"),
    ],
)
def test_a_refusal_has_its_status_and_code_and_is_not_carried_out(s3: S3, kind: Kind, code: str) -> None:
    with with_faults(s3, Fault(kind, times=1)) as proxy:
        client = client_of(proxy, s3)
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket=s3.bucket, Key="x", Body=BODY)
        assert s3.object_keys() == []
        client.put_object(Bucket=s3.bucket, Key="x", Body=BODY)
    assert caught.value.response["Error"]["Code"] == code
    assert [request.status for request in proxy.requests] == [int(kind.value[:3]), 200]
    assert [request.fault for request in proxy.requests] == [kind.name, None]
    assert s3.get(f"s3://{s3.bucket}/x") == BODY


@pytest.mark.parametrize(("kind", "carried_out"), [(Kind.RESET, False), (Kind.ANSWER_LOST, True)])
def test_a_connection_breaks_before_or_after_the_request_is_carried_out(s3: S3, kind: Kind, carried_out: bool) -> None:
    with with_faults(s3, Fault(kind)) as proxy, pytest.raises(ConnectionClosedError):
        client_of(proxy, s3).put_object(Bucket=s3.bucket, Key="x", Body=BODY)
    assert s3.object_keys() == ["x"] * carried_out
    assert proxy.requests[0].status is None


def test_a_stalled_request_is_neither_carried_out_nor_answered(s3: S3) -> None:
    with with_faults(s3, Fault(Kind.STALLED)) as proxy, pytest.raises(ReadTimeoutError):
        client_of(proxy, s3).put_object(Bucket=s3.bucket, Key="x", Body=BODY)
    assert s3.object_keys() == []


@pytest.mark.parametrize("kind", [Kind.TRUNCATED, Kind.EMPTIED])
def test_a_truncated_body_has_the_length_of_the_whole(s3: S3, kind: Kind) -> None:
    s3.put("x", BODY)
    with with_faults(s3, Fault(kind)) as proxy:
        answer = client_of(proxy, s3).get_object(Bucket=s3.bucket, Key="x")
        assert answer["ContentLength"] == len(BODY)
        with pytest.raises((IncompleteReadError, ResponseStreamingError)):
            answer["Body"].read()


def test_a_flipped_bit_is_on_the_way_and_not_in_the_store(s3: S3) -> None:
    s3.put("x", BODY)
    with with_faults(s3, Fault(Kind.FLIPPED)) as proxy, pytest.raises(FlexibleChecksumError):
        client_of(proxy, s3).get_object(Bucket=s3.bucket, Key="x")["Body"].read()
    assert s3.get(f"s3://{s3.bucket}/x") == BODY


def test_a_trickling_body_comes_byte_by_byte(s3: S3) -> None:
    s3.put("x", BODY)
    with with_faults(s3, Fault(Kind.TRICKLE)) as proxy:
        body = client_of(proxy, s3).get_object(Bucket=s3.bucket, Key="x")["Body"]
        assert [body._raw_stream.read1(1000) for _ in range(3)] == [BODY[:1], BODY[1:2], BODY[2:3]]


def test_a_wrong_etag_is_on_the_answer_and_not_in_the_store(s3: S3) -> None:
    with with_faults(s3, Fault(Kind.WRONG_ETAG)) as proxy:
        told = client_of(proxy, s3).put_object(Bucket=s3.bucket, Key="x", Body=BODY)["ETag"]
    assert told != s3.client.head_object(Bucket=s3.bucket, Key="x")["ETag"]


def test_metadata_that_is_lost_is_on_no_answer(s3: S3) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key="x", Body=BODY, Metadata={"kept": "yes"})
    with with_faults(s3, Fault(Kind.METADATA_LOST, times=1)) as proxy:
        client = client_of(proxy, s3)
        found = [client.head_object(Bucket=s3.bucket, Key="x")["Metadata"] for _ in range(2)]
    assert found == [{}, {"kept": "yes"}]


def test_a_token_expires_for_one_access_key_alone(s3: S3) -> None:
    s3.put("x", BODY)
    with with_faults(s3, Fault(Kind.EXPIRED_TOKEN, when=lambda request: request.access_key == "old")) as proxy:
        with pytest.raises(ClientError, match="ExpiredToken"):
            client_of(proxy, s3, "old").get_object(Bucket=s3.bucket, Key="x")
        assert client_of(proxy, s3).get_object(Bucket=s3.bucket, Key="x")["Body"].read() == BODY


def test_an_old_store_refuses_checksums_and_conditions_and_nothing_else(s3: S3) -> None:
    with with_faults(s3, Fault(Kind.CHECKSUM_REFUSED)) as proxy:
        client = client_of(proxy, s3)
        with pytest.raises(ClientError, match="NotImplemented"):
            client.put_object(Bucket=s3.bucket, Key="x", Body=BODY)
        assert client.list_objects_v2(Bucket=s3.bucket)["KeyCount"] == 0
    with with_faults(s3, Fault(Kind.CONDITION_REFUSED)) as proxy:
        client = client_of(proxy, s3)
        with pytest.raises(ClientError, match="NotImplemented"):
            client.put_object(Bucket=s3.bucket, Key="x", Body=BODY, IfNoneMatch="*")
        etag = client.put_object(Bucket=s3.bucket, Key="x", Body=BODY)["ETag"]
        client.get_object(Bucket=s3.bucket, Key="x", IfMatch=etag)["Body"].close()


def test_a_fault_can_wait_for_its_turn(s3: S3) -> None:
    s3.put("x", BODY)

    def outcomes(*faults: Fault) -> list[int | None]:
        with with_faults(s3, *faults) as proxy:
            client = client_of(proxy, s3)
            for _ in range(4):
                with suppress(ClientError):
                    client.head_object(Bucket=s3.bucket, Key="x")
                    client.get_object(Bucket=s3.bucket, Key="x")["Body"].read()
        return [request.status for request in proxy.requests if request.method == "HEAD"]

    heads = Fault(Kind.SLOW_DOWN, when=lambda request: request.method == "HEAD", skip=1, times=2)
    assert outcomes(heads) == [200, 503, 503, 200]
    assert outcomes(Fault(Kind.SLOW_DOWN, times=1), Fault(Kind.ACCESS_DENIED, times=1)) == [503, 403, 200, 200]


def test_what_a_rate_befalls_hangs_on_the_seed_alone(s3: S3) -> None:
    def befallen(seed: int) -> list[str | None]:
        with with_faults(s3, Fault(Kind.INTERNAL_ERROR, rate=0.3), seed=seed) as proxy:
            client = client_of(proxy, s3)
            for number in range(40):
                with suppress(ClientError):
                    client.delete_object(Bucket=s3.bucket, Key=f"{number % 20}")
        return [request.fault for request in proxy.requests]

    assert befallen(1) == befallen(1) != befallen(2)
    assert 4 < befallen(1).count("INTERNAL_ERROR") < 20


def test_a_function_can_decide_too(s3: S3) -> None:
    def decide(request: Request) -> Kind | None:
        return Kind.NO_SUCH_KEY if request.key == "x" else None

    with faulty_store(s3.store.endpoint_url, decide) as proxy:
        client = client_of(proxy, s3)
        client.put_object(Bucket=s3.bucket, Key="y", Body=b"")
        with pytest.raises(ClientError, match="NoSuchKey"):
            client.put_object(Bucket=s3.bucket, Key="x", Body=b"")


def test_hooks_are_called_before_and_after_a_request_is_carried_out(s3: S3) -> None:
    seen: list[tuple[str, list[str]]] = []
    with with_faults(
        s3,
        before=lambda request: seen.append((f"before {request.method}", s3.object_keys())),
        after=lambda request: seen.append((f"after {request.method}", s3.object_keys())),
    ) as proxy:
        client_of(proxy, s3).put_object(Bucket=s3.bucket, Key="x", Body=BODY)
    assert seen == [("before PUT", []), ("after PUT", ["x"])]


def test_a_proxy_that_is_closed_takes_no_connection(s3: S3) -> None:
    with with_faults(s3) as proxy:
        client = client_of(proxy, s3)
        client.list_objects_v2(Bucket=s3.bucket)
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(proxy.url.rpartition(":")[2])))
    with pytest.raises(EndpointConnectionError):
        client.list_objects_v2(Bucket=s3.bucket)
