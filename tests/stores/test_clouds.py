"""Whole jobs in Google's store and in Azure: input, images, output, resume points, shards, scores used again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import ObjectInfo, Storage, StorageError, Unchanged
from tests.conftest import SHAPES, Cloud
from tests.stores.azurite import Azurite

pytestmark = pytest.mark.slow


@pytest.fixture(params=["gs", "az"])
def cloud(request: pytest.FixtureRequest, shapes_dataset: Path) -> Cloud:
    """A bucket with the demo data set in its folder ``data``."""
    made: Cloud = request.getfixturevalue(request.param)
    for path in sorted(shapes_dataset.rglob("*")):
        if path.is_file():
            made.storage.upload(path, f"{made.root}/data/{path.relative_to(shapes_dataset).as_posix()}")
    return made


def request_for(cloud: Cloud, run: str, **fields: Any) -> EvaluationRequest:
    task = Requester(dag_id="dag", run_id=run, task_id="score")
    places = {"input": f"{cloud.root}/data/captions.jsonl", "output": f"{cloud.root}/steps/out_step1.jsonl"}
    defaults = {"model": SHAPES, "error_key": "why", "max_error_rate": 0.5, "requested_by": task}
    return parse_request({**places, **defaults, **fields})


def local_output(data: Path, folder: Path) -> bytes:
    """What the same rows come to on the local disk."""
    copy = shutil.copytree(data, folder / "data")
    evaluate(
        parse_request(
            {
                "input": str(copy / "captions.jsonl"),
                "output": str(folder / "out.jsonl"),
                "model": SHAPES,
                "error_key": "why",
                "max_error_rate": 0.5,
                "resume_point_rows": 8,
            }
        ),
        Storage(),
    )
    return (folder / "out.jsonl").read_bytes()


class DiesInTheMiddle(Storage):
    """Writes two resume points and then no more."""

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        if ".resume/" in uri and len([info for info in self.list(uri.rpartition("/")[0] + "/") if info.size]) >= 2:
            raise StorageError(f"{uri}: the power is off")
        return super().write(data, uri, only_if)


def test_a_job_that_died_goes_on_and_gives_what_a_local_one_gives(
    cloud: Cloud, shapes_dataset: Path, tmp_path: Path
) -> None:
    request = request_for(cloud, "run", resume_point_rows=8)
    with pytest.raises(JobError):
        evaluate(request, DiesInTheMiddle())
    assert cloud.storage.find(request.output) is None
    manifest = evaluate(request, Storage())
    assert manifest.rows.resumed > 0
    assert cloud.storage.read(request.output) == local_output(shapes_dataset, tmp_path)
    assert proof(Storage(), request.output) == manifest
    left = [info.uri.removeprefix(request.output) for info in cloud.storage.list(f"{cloud.root}/steps/")]
    assert sorted(left) == ["", ".manifest.json", ".report.html", ".samples.json", ".worst-rows.csv"]


def test_a_job_is_confirmed_overwritten_and_kept_from_another_task(cloud: Cloud) -> None:
    first = evaluate(request_for(cloud, "first"), Storage())
    confirmed = evaluate(request_for(cloud, "second"), Storage())
    assert confirmed.output == first.output
    assert confirmed.confirmed_by == request_for(cloud, "second").requested_by
    other = Requester(dag_id="another", run_id="run", task_id="score")
    with pytest.raises(JobError, match="exists already and is not this job's"):
        evaluate(request_for(cloud, "third", output_key="another", requested_by=other), Storage())
    overwritten = evaluate(request_for(cloud, "fourth", overwrite=True, output_key="score"), Storage())
    assert overwritten.rows.scored == first.rows.scored
    assert overwritten.output != first.output


def test_shards_are_merged_and_scores_are_used_again(cloud: Cloud) -> None:
    request = request_for(cloud, "run", reuse=f"{cloud.root}/scores/")
    plan = plan_shards(request, Storage(), shards=2)
    for name in plan.names:
        evaluate(plan.shard_request(name, request.requested_by), Storage())
    merged = merge_shards(plan.uri, Storage(), request.requested_by)
    assert proof(Storage(), request.output) == merged
    again = evaluate(
        request_for(cloud, "again", reuse=f"{cloud.root}/scores/", output=f"{cloud.root}/steps/again_step1.jsonl"),
        Storage(),
    )
    assert again.rows.reused > 0
    assert cloud.storage.read(again.output.uri) == cloud.storage.read(request.output)


def test_images_that_are_missing_or_cannot_be_named_cost_their_rows_alone(cloud: Cloud) -> None:
    lines = cloud.storage.read(f"{cloud.root}/data/captions.jsonl").decode().splitlines()
    rows = [json.loads(line) for line in lines]
    [key] = [name for name, value in rows[0].items() if isinstance(value, str) and value.startswith("images/")]
    for row, image in zip(rows, ("images/absent.png", f"{cloud.root}/data/images//x.png", "../../x.png"), strict=False):
        row[key] = image
    cloud.storage.write("".join(json.dumps(row) + "\n" for row in rows).encode(), f"{cloud.root}/data/captions.jsonl")
    request = request_for(cloud, "run")
    evaluate(request, Storage())
    written = [json.loads(line) for line in cloud.storage.read(request.output).decode().splitlines()]
    reasons = [row["why"].partition(":")[0] for row in written[:3]]
    assert reasons == ["image_not_found", "image_not_found", "image_forbidden"]
    assert sum(row["clip_score"] is not None for row in written) > len(written) / 2


def test_images_in_another_bucket_are_read_where_the_job_was_given_it(cloud: Cloud) -> None:
    lines = cloud.storage.read(f"{cloud.root}/data/captions.jsonl").decode().splitlines(keepends=True)
    scheme = cloud.root.partition("://")[0]
    other = f"{cloud.root.partition('://')[2]}-pictures"
    (cloud.running.make_container if isinstance(cloud.running, Azurite) else cloud.running.make_bucket)(other)
    for info in cloud.storage.list(f"{cloud.root}/data/images/"):
        cloud.storage.concatenate([info], f"{scheme}://{other}/{info.uri.rpartition('/')[2]}")
    moved = "".join(line.replace('"images/', f'"{scheme}://{other}/') for line in lines[:8])
    cloud.storage.write(moved.encode(), f"{cloud.root}/data/captions.jsonl")
    with pytest.raises(JobError, match="image_forbidden"):
        evaluate(request_for(cloud, "first"), Storage())
    manifest = evaluate(request_for(cloud, "second", image_buckets=[f"{scheme}://{other}"]), Storage())
    assert manifest.rows.scored == 8
