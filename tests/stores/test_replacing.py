"""Whatever replaces something, in every S3 store that can be had here: what should be replaced is, and nothing else.

Stores differ in what they keep to of conditional writes (`If-Match`, `If-None-Match`), and in which form of it.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import ObjectChanged, ObjectInfo, Storage, StorageError, Unchanged
from clip_operator.storage.s3.parts import PART_BYTES
from tests.conftest import S3, SHAPES

pytestmark = pytest.mark.slow

SMALL = b"small"
LARGE = bytes(range(256)) * (9 << 12)  # two parts
NOTHING = Unchanged(None)


def anew(s3: S3) -> Storage:
    """The storage as another job has it, to which the store is not known yet."""
    return Storage(s3.storage.s3_access)


def by_write(storage: Storage, data: bytes, uri: str, only_if: Unchanged | None, folder: Path) -> ObjectInfo:
    return storage.write(data, uri, only_if)


def by_upload(storage: Storage, data: bytes, uri: str, only_if: Unchanged | None, folder: Path) -> ObjectInfo:
    (folder / "file").write_bytes(data)
    return storage.upload(folder / "file", uri, only_if)


def by_create(storage: Storage, data: bytes, uri: str, only_if: Unchanged | None, folder: Path) -> ObjectInfo:
    with storage.create(uri, only_if) as out:
        out.write(data)
    return out.info


def by_concatenate(storage: Storage, data: bytes, uri: str, only_if: Unchanged | None, folder: Path) -> ObjectInfo:
    halves = (data[: len(data) // 2], data[len(data) // 2 :])
    sources = [storage.write(half, f"{uri}.{number}") for number, half in enumerate(halves)]
    return storage.concatenate(sources, uri, only_if)


Put = Callable[[Storage, bytes, str, Unchanged | None, Path], ObjectInfo]


@pytest.mark.parametrize("put", [by_write, by_upload, by_create, by_concatenate])
def test_what_is_expected_is_replaced_and_nothing_else(
    any_s3: S3, tmp_path: Path, put: Put, caplog: pytest.LogCaptureFixture
) -> None:
    for data in (SMALL, LARGE):
        storage, uri = anew(any_s3), f"s3://{any_s3.bucket}/{len(data)}"
        standing = put(storage, b"first" + data, uri, NOTHING, tmp_path)
        for only_if, told in ((NOTHING, "exists already"), (Unchanged(ObjectInfo(uri, 5, "0" * 32)), "was replaced")):
            with pytest.raises(ObjectChanged, match=told):
                put(storage, data, uri, only_if, tmp_path)
        assert storage.stat(uri) == standing
        for number in range(2):
            content = b"%d" % number + data
            standing = put(storage, content, uri, Unchanged(standing), tmp_path)
            assert standing == storage.stat(uri)
            assert any_s3.get(uri) == content
        storage.delete(uri)
        with pytest.raises(ObjectChanged, match="is gone"):
            put(storage, data, uri, Unchanged(standing), tmp_path)
        assert storage.unfinished_uploads(uri) == []
    assert "does not keep to" not in caplog.text


@pytest.mark.parametrize("replacing", [False, True], ids=["where nothing was", "where something was"])
def test_exactly_one_of_many_writers_at_the_same_time_wins(any_s3: S3, replacing: bool) -> None:
    uri = f"s3://{any_s3.bucket}/x"
    only_if = Unchanged(any_s3.storage.write(b"old", uri) if replacing else None)
    together = threading.Barrier(8)

    def contend(number: int) -> ObjectInfo | None:
        storage = anew(any_s3)
        storage.find(uri)  # the connection stands before the race begins
        together.wait()
        try:
            return storage.write(f"writer {number}".encode(), uri, only_if)
        except ObjectChanged:
            return None

    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(contend, range(8)))
    [winner] = [number for number, info in enumerate(told) if info is not None]
    assert any_s3.get(uri) == f"writer {winner}".encode()
    assert told[winner] == any_s3.storage.stat(uri)


class Job:
    """Scores the demo data set, or what a test makes of it, into the store."""

    def __init__(self, s3: S3, data: Path) -> None:
        self._s3 = s3
        self.data = data
        self.output = f"s3://{s3.bucket}/steps/out_step1.jsonl"

    def request(self, run: str, **fields: Any) -> EvaluationRequest:
        task = Requester(dag_id="dag", run_id=run, task_id="score")
        defaults = {"input": f"{self.data}/captions.jsonl", "output": self.output, "model": SHAPES, "error_key": "why"}
        return parse_request({**defaults, "max_error_rate": 0.5, "requested_by": task, **fields})

    def run(self, run: str, storage: Storage | None = None, **fields: Any) -> EvaluationManifest:
        manifest = evaluate(self.request(run, **fields), storage or anew(self._s3))
        self.is_proved_by(manifest)
        return manifest

    def is_proved_by(self, manifest: EvaluationManifest) -> None:
        """Look whether the output stands there as the manifest says, and nothing is left beside it."""
        assert proof(anew(self._s3), self.output) == manifest
        beside = [
            key.removeprefix("steps/out_step1.jsonl") for key in self._s3.object_keys() if key.startswith("steps/")
        ]
        assert sorted(beside) == ["", ".manifest.json", ".report.html", ".samples.json", ".worst-rows.csv"]


@pytest.fixture
def job(any_s3: S3, shapes_dataset: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Job:
    """Its output is large, and uploaded in parts, where a test gives it as a parameter."""
    data = shutil.copytree(shapes_dataset, tmp_path / "data")
    if getattr(request, "param", "small") == "large":
        rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
        padding = "-" * (PART_BYTES // len(rows))
        (data / "captions.jsonl").write_text("".join(json.dumps({**row, "more": padding}) + "\n" for row in rows))
    return Job(any_s3, data)


@pytest.mark.parametrize("job", ["small", "large"], indirect=True)
def test_a_job_confirms_overwrites_and_rescores_what_stands(job: Job) -> None:
    [away, *_] = (job.data / "images").glob("00000.*")
    image = away.read_bytes()
    away.unlink()
    first = job.run("first")
    for run in ("second", "third"):
        confirmed = job.run(run)
        assert confirmed.confirmed_by == job.request(run).requested_by
        assert confirmed.output == first.output
    away.write_bytes(image)
    rescored = job.run("fourth", rescore="failed")
    assert (rescored.rows.scored, rescored.rows.resumed) == (first.rows.scored + 1, first.rows.scored)
    overwritten = job.run("fifth", overwrite=True)
    assert (overwritten.rows.scored, overwritten.rows.resumed) == (rescored.rows.scored, 0)


class DiesBeforeTheProof(Storage):
    """Writes no manifest."""

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        if uri.endswith(".manifest.json"):
            raise StorageError(f"{uri}: the power is off")
        return super().write(data, uri, only_if)


@pytest.mark.parametrize("job", ["large"], indirect=True)
def test_a_claim_lets_the_next_try_replace_what_the_last_one_has_not_proved(any_s3: S3, job: Job) -> None:
    with pytest.raises(StorageError, match="the power is off"):
        job.run("run", DiesBeforeTheProof(any_s3.storage.s3_access))
    other = Requester(dag_id="another", run_id="run", task_id="score")
    with pytest.raises(JobError, match="exists already and is not this job's"):
        evaluate(job.request("run", requested_by=other), anew(any_s3))
    job.run("run", output_key="clip_score")


@pytest.mark.parametrize("job", ["large"], indirect=True)
def test_a_run_that_comes_in_between_keeps_what_it_wrote(any_s3: S3, job: Job) -> None:
    class MeetsAnotherRun(Storage):
        def upload(self, path: Path, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            others.append(job.run("other", overwrite=True, output_key="score"))
            return super().upload(path, uri, only_if)

    others: list[EvaluationManifest] = []
    job.run("first")
    with pytest.raises(JobError, match=r"another run has written .* while this one was scoring"):
        job.run("second", MeetsAnotherRun(any_s3.storage.s3_access), overwrite=True)
    job.is_proved_by(others[0])


def test_a_merge_of_shards_replaces_what_stands_and_confirms_what_is_merged(any_s3: S3, job: Job) -> None:
    for run, fields in (("first", {}), ("second", {"overwrite": True})):
        request = job.request(run, resume_point_rows=16, **fields)
        plan = plan_shards(request, anew(any_s3), shards=2)
        for name in plan.names:
            evaluate(plan.shard_request(name, request.requested_by), anew(any_s3))
        merged = merge_shards(plan.uri, anew(any_s3), request.requested_by)
        job.is_proved_by(merged)
    again = merge_shards(plan.uri, anew(any_s3), job.request("third").requested_by)
    assert again.confirmed_by == job.request("third").requested_by
    job.is_proved_by(again)


def test_the_score_store_keeps_what_several_runs_put_into_it(any_s3: S3, job: Job) -> None:
    def reused(run: str, rows: int) -> int:
        (job.data / "some.jsonl").write_text("".join(lines[:rows]))
        places = {"output": f"s3://{any_s3.bucket}/{run}.jsonl", "reuse": f"s3://{any_s3.bucket}/scores/"}
        return evaluate(job.request(run, input=f"{job.data}/some.jsonl", **places), anew(any_s3)).rows.reused

    lines = (job.data / "captions.jsonl").read_text().splitlines(keepends=True)
    assert [reused("first", 32), reused("second", 48), reused("third", 48)] == [0, 30, 45]
