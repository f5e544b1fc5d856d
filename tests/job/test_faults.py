"""A job whose store fails: it ends with the same bytes or with an error, soon, and never hangs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.storage import AccessDenied, BucketNotFound, CredentialsError, S3Access, Storage
from tests.conftest import S3, SHAPES
from tests.faulty_store import Fault, FaultyStore, Kind, Request, faulty_store
from tests.storage.conftest import within


@pytest.fixture
def folder(s3: S3, shapes_dataset: Path) -> str:
    """The demo data set in S3."""
    return s3.put_folder(shapes_dataset, "shapes")


@pytest.fixture(scope="session")
def expected(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an undisturbed run makes of it."""
    output = tmp_path_factory.mktemp("expected") / "scored.jsonl"
    evaluate(request(str(shapes_dataset), output=str(output)))
    return output.read_bytes()


def request(folder: str, **fields: Any) -> EvaluationRequest:
    defaults = {
        "input": f"{folder}/captions.jsonl",
        "output": f"{folder}/scored.jsonl",
        "model": SHAPES,
        "error_key": "why",
        "resume_point_rows": 16,
        "report": False,  # when its objects are written depends on nothing that is tested here
    }
    return parse_request({**defaults, **fields})


def through(proxy: FaultyStore, s3: S3, key: str | None = None) -> Storage:
    """Return the storage of a job that reaches the store through the proxy, and is less patient than by default."""
    session = s3.storage.s3_access.session
    if key is not None:
        session = boto3.session.Session(key, s3.store.secret_key, region_name="us-east-1")
    quick = Config(retries={"mode": "standard", "max_attempts": 5})
    return Storage(S3Access(session, proxy.url, timeout_seconds=0.5, config=quick))


def is_image(seen: Request) -> bool:
    return "/images/" in seen.path


PASSING = [
    Kind.SLOW_DOWN,
    Kind.INTERNAL_ERROR,
    Kind.RESET,
    Kind.ANSWER_LOST,
    Kind.STALLED,
    Kind.TRUNCATED,
    Kind.TRICKLE,
    Kind.WRONG_ETAG,
]


@pytest.mark.parametrize("kinds", [*([kind] for kind in PASSING), PASSING], ids=[*(k.name for k in PASSING), "all"])
def test_with_a_fault_in_every_fifth_request_the_bytes_are_the_same(
    s3: S3, folder: str, expected: bytes, kinds: list[Kind]
) -> None:
    """It may take more than one try; each ends by itself."""
    faults = [Fault(kind, rate=0.2 / len(kinds)) for kind in kinds]
    failures = []
    with faulty_store(s3.store.endpoint_url, faults, seed=5) as proxy:
        storage = through(proxy, s3)
        for _ in range(3):
            try:
                manifest = within(120, lambda: evaluate(request(folder), storage))
                break
            except JobError as error:
                failures.append(str(error))
        else:
            pytest.fail(f"no try succeeded: {failures}")
    assert sum(seen.fault is not None for seen in proxy.requests) > 10
    assert s3.get(f"{folder}/scored.jsonl") == expected
    assert evaluate(request(folder), s3.storage) == manifest
    assert {key for key in s3.object_keys() if "scored" in key} == {
        "shapes/scored.jsonl",
        "shapes/scored.jsonl.manifest.json",
    }


def after_images(count: int) -> Callable[[Request], bool]:
    """Say of each request whether it comes after so many images have been asked for."""
    seen: set[str] = set()

    def is_late(request: Request) -> bool:
        if request.method == "GET" and is_image(request):
            seen.add(request.path)
        return len(seen) > count

    return is_late


def test_a_bucket_that_is_closed_in_the_middle_ends_the_job_and_what_was_scored_is_kept(
    s3: S3, folder: str, expected: bytes
) -> None:
    is_late = after_images(40)
    closed = Fault(Kind.ACCESS_DENIED, when=lambda seen: is_late(seen) and is_image(seen))
    with faulty_store(s3.store.endpoint_url, [closed]) as proxy, pytest.raises(AccessDenied) as error:
        within(60, lambda: evaluate(request(folder, max_error_rate=1), through(proxy, s3)))
    assert f"the bucket s3://{s3.bucket} was closed to this job while it ran" in str(error.value)
    assert "shapes/scored.jsonl" not in s3.object_keys()
    assert evaluate(request(folder, max_error_rate=1), s3.storage).rows.total == 64
    assert s3.get(f"{folder}/scored.jsonl") == expected


def test_an_image_that_is_gone_in_the_middle_is_one_bad_row(s3: S3, folder: str, expected: bytes) -> None:
    gone = Fault(Kind.NO_SUCH_KEY, when=lambda seen: seen.key == "shapes/images/00030.jpg")
    with faulty_store(s3.store.endpoint_url, [gone]) as proxy:
        manifest = within(60, lambda: evaluate(request(folder), through(proxy, s3)))
    assert manifest.rows.failures["image_not_found"] == 2
    rows = [json.loads(line) for line in s3.get(f"{folder}/scored.jsonl").splitlines()]
    before = [json.loads(line) for line in expected.splitlines()]
    assert [row["id"] for row, other in zip(rows, before, strict=True) if row != other] == ["00030"]


def test_the_input_that_is_gone_in_the_middle_ends_the_job(s3: S3, folder: str) -> None:
    gone = Fault(Kind.NO_SUCH_KEY, when=lambda seen: seen.method == "GET" and seen.key == "shapes/captions.jsonl")
    with faulty_store(s3.store.endpoint_url, [gone]) as proxy, pytest.raises(JobError, match=r"captions\.jsonl"):
        within(60, lambda: evaluate(request(folder), through(proxy, s3)))
    assert not [key for key in s3.object_keys() if "scored" in key]


def test_a_bucket_that_is_gone_ends_the_job(s3: S3, folder: str) -> None:
    elsewhere = f"s3://{s3.bucket}-gone"
    with pytest.raises(BucketNotFound, match=f"the bucket '{s3.bucket}-gone' does not exist"):
        evaluate(request(folder, image_root=elsewhere, max_error_rate=1), s3.storage)


def test_a_clock_that_is_wrong_is_named(s3: S3, folder: str) -> None:
    with faulty_store(s3.store.endpoint_url, [Fault(Kind.CLOCK_SKEWED)]) as proxy, pytest.raises(CredentialsError) as e:
        within(60, lambda: evaluate(request(folder), through(proxy, s3)))
    assert "clock" in str(e.value)


def test_credentials_that_expire_in_the_middle_end_the_job_and_the_next_try_resumes(
    s3: S3, folder: str, expected: bytes
) -> None:
    points = []

    def is_late(seen: Request) -> bool:
        if ".resume/" in seen.key and seen.method == "PUT":
            points.append(seen.key)
        return len(points) > 2

    expired = Fault(Kind.EXPIRED_TOKEN, when=is_late)
    with faulty_store(s3.store.endpoint_url, [expired]) as proxy, pytest.raises(CredentialsError) as error:
        within(60, lambda: evaluate(request(folder), through(proxy, s3)))
    assert "expired" in str(error.value)
    manifest = evaluate(request(folder), s3.storage)
    assert 30 <= manifest.rows.resumed <= 32
    assert s3.get(f"{folder}/scored.jsonl") == expected


def test_a_store_that_is_down_for_good_fails_the_job_soon_and_says_so(s3: S3, folder: str) -> None:
    down = Fault(Kind.SLOW_DOWN, when=after_images(10))
    with faulty_store(s3.store.endpoint_url, [down]) as proxy, pytest.raises(JobError, match="SlowDown"):
        within(120, lambda: evaluate(request(folder), through(proxy, s3)))


@pytest.mark.parametrize("kind", [Kind.CHECKSUM_REFUSED, Kind.CONDITION_REFUSED], ids=lambda kind: kind.name)
def test_an_old_store_is_told_apart_and_can_be_used(s3: S3, folder: str, expected: bytes, kind: Kind) -> None:
    with faulty_store(s3.store.endpoint_url, [Fault(kind)]) as proxy:
        if kind is Kind.CHECKSUM_REFUSED:
            with pytest.raises(JobError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
                evaluate(request(folder), through(proxy, s3))
        session = s3.storage.s3_access.session
        old = Config(request_checksum_calculation="when_required")
        evaluate(request(folder), Storage(S3Access(session, proxy.url, config=old)))
    assert s3.get(f"{folder}/scored.jsonl") == expected
