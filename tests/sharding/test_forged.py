"""Whoever may write beside an output, and nowhere else, has neither the merge nor a shard do so for him."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import JobError, RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.operators.work import own_request, work_of
from clip_operator.proof.claims import write_claim
from clip_operator.proof.standing import find_output, version
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.sharding import ShardPlan, merge_shards, plan_shards
from clip_operator.steps import claim_uri, manifest_uri, shards_prefix
from clip_operator.storage import Storage
from tests.operators.test_work import parameters_of
from tests.sharding.conftest import SEGMENT, DataSet

OWN = Requester(dag_id="d", run_id="r", task_id="merge")

Json = dict[str, Any]


def change(uri: str, how: Callable[[Json], object]) -> None:
    """Change a JSON object in the store."""
    document = json.loads(Path(uri).read_text())
    how(document)
    Path(uri).write_text(json.dumps(document))


def scored(plan: ShardPlan) -> None:
    for name in plan.names:
        evaluate(plan.shard_request(name, None), Storage())


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Another team's table."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "table.jsonl").write_text('{"theirs": 1}\n')
    return folder / "table.jsonl"


THEIRS = "what another team has"

FORGED_PLANS: dict[str, Callable[[Json], object]] = {
    "another table": lambda plan: plan["request"].update(output=THEIRS),
    "a filtered table": lambda plan: plan["request"].update(min_score=0.5, filtered_output=THEIRS),
    "what may be replaced": lambda plan: plan["request"].update(overwrite=True),
    "columns": lambda plan: plan["request"].update(output_key="other"),
    "where it saves": lambda plan: plan["request"].update(resume_point_rows=10**12),
    "fewer shards": lambda plan: plan["shards"].pop(),
    "a shard twice": lambda plan: plan["shards"].append(plan["shards"][-1]),
    "shards in another order": lambda plan: plan["shards"].reverse(),
    "rows": lambda plan: plan.update(total_rows=10**9),
    "a layout": lambda plan: plan.update(standalone=True),
    "nothing to do": lambda plan: plan.update(is_complete=True, shards=[], total_rows=0),
    "another input": lambda plan: plan["input"].update(etag="other"),
    "no number": lambda plan: plan.update(total_rows=float("nan")),
    "an id": lambda plan: plan.update(id="0" * 32),
}


@pytest.mark.parametrize("forged", FORGED_PLANS.values(), ids=FORGED_PLANS)
def test_a_plan_that_was_changed_where_it_stands_is_refused_by_all_who_read_it(
    data: DataSet, tmp_path: Path, theirs: Path, forged: Callable[[Json], object]
) -> None:
    request = data.request("rows.jsonl", tmp_path / "out.jsonl", resume_point_rows=64)
    plan = plan_shards(request, Storage(), shards=2)
    before = theirs.read_bytes()
    change(plan.uri, forged)
    Path(plan.uri).write_text(Path(plan.uri).read_text().replace(THEIRS, str(theirs)))
    with pytest.raises(JobError, match="is not what the plan task has written there; clear the plan task"):
        merge_shards(plan.uri, Storage(), OWN)
    assert theirs.read_bytes() == before
    assert sorted(path.name for path in theirs.parent.iterdir()) == ["table.jsonl"]
    assert not (tmp_path / "out.jsonl").exists()


def parameters(data: DataSet, folder: Path, **more: Any) -> Json:
    own = {
        "first_entry_file_name": f"{data.folder}/rows.jsonl",
        "cache_path": str(folder),
        "file_name_prefix": "rows",
        "model_name": "builtin://shapes-clip",
        "resume_point_rows": SEGMENT,
        **more,
    }
    return parameters_of(**own)


@pytest.mark.parametrize(
    "more", [{"cache_path": "theirs"}, {"min_score": 0.5}, {"output_key": "other"}], ids=["place", "filter", "column"]
)
def test_a_whole_plan_of_another_request_is_not_merged_with_these_parameters(
    data: DataSet, tmp_path: Path, more: Json
) -> None:
    """Its id is right, and its URI has come where that of the own plan should be."""
    more = {name: str(tmp_path / value) if name == "cache_path" else value for name, value in more.items()}
    forged = work_of(parameters(data, tmp_path / "own", **more), OWN, Storage()).request
    plan = plan_shards(forged, Storage(), shards=2)
    scored(plan)
    own = parameters(data, tmp_path / "own")

    def merge(planned_with: Json) -> None:
        merge_shards(plan.uri, Storage(), OWN, own=lambda planned: own_request(planned_with, planned, OWN))

    with pytest.raises(RequestError, match="differ from those the step was planned with"):
        merge(own)
    assert not Path(forged.output).exists()
    merge({**own, **more})
    assert Path(forged.output).exists(), "with the parameters of the plan it goes on"
    with pytest.raises(RequestError, match="differ from those the step was planned with"):
        merge(own)


def test_a_merge_may_go_about_its_work_otherwise_than_the_plan(data: DataSet, tmp_path: Path) -> None:
    planned = work_of(parameters(data, tmp_path, max_error_rate=0.0, overwrite=True), OWN, Storage()).request
    plan = plan_shards(planned, Storage(), shards=2)
    for name in plan.names:
        evaluate(plan.shard_request(name, None).model_copy(update={"max_error_rate": 1}), Storage())
    with pytest.raises(JobError, match="too many rows have no score"):
        merge_shards(plan.uri, Storage(), OWN)
    own = parameters(data, tmp_path, max_error_rate=0.2, report=False)
    done = merge_shards(plan.uri, Storage(), OWN, own=lambda request: own_request(own, request, OWN))
    assert (done.request.max_error_rate, done.request.report) == (0.2, False)
    assert done.request.overwrite, "what may be replaced is for the whole step to say"


def test_an_output_that_another_has_written_since_the_plan_is_not_replaced(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=2)
    scored(plan)
    (tmp_path / "out.jsonl").write_text("another's\n")
    with pytest.raises(JobError, match="exists already and is not this job's"):
        merge_shards(plan.uri, Storage(), OWN)
    assert (tmp_path / "out.jsonl").read_text() == "another's\n"


def test_a_manifest_that_says_that_all_is_done_removes_nothing_elsewhere(
    data: DataSet, tmp_path: Path, theirs: Path
) -> None:
    own = data.request("rows.jsonl", tmp_path / "out.jsonl", min_score=0.4, filtered_output=f"{tmp_path}/kept.jsonl")
    plan = plan_shards(own, Storage(), shards=2)
    scored(plan)
    merge_shards(plan.uri, Storage(), OWN)
    write_claim(Storage(), str(theirs), None)
    shard = Path(shards_prefix(str(theirs))) / "x"
    shard.parent.mkdir()
    shard.touch()

    def leads_elsewhere(manifest: Json) -> None:
        manifest["request"]["filtered_output"] = manifest["filtered"]["output"]["uri"] = str(theirs)

    change(manifest_uri(own.output), leads_elsewhere)
    merge_shards(plan.uri, Storage(), OWN)
    assert shard.exists()
    assert Path(claim_uri(str(theirs))).exists()


def bombs(values: bytes) -> str:
    return base64.b64encode(values).decode()


FORGED_SHARDS: dict[str, Callable[[Json], object]] = {
    "not a number": lambda manifest: manifest["scores"].update(mean=float("nan")),
    "infinite": lambda manifest: manifest["scores"].update(maximum=float("inf")),
    "no score": lambda manifest: manifest["scores"].update(minimum=-3),
    "more scores": lambda manifest: manifest["scores"].update(count=10**6),
    "more rows": lambda manifest: manifest["rows"].update(total=10**30),
    "fewer rows": lambda manifest: manifest["rows"].update(total=1, scored=1, failed=0, failures={}),
    "negative": lambda manifest: manifest["rows"].update(scored=-5),
    "a reason": lambda manifest: manifest["rows"].update(
        scored=manifest["rows"]["total"] - 1, failed=1, failures={"boredom": 1}
    ),
    "words for a sum": lambda manifest: manifest["sums"].update(total="many"),
    "a long sum": lambda manifest: manifest["sums"].update(total="9" * 5000),
    "no variance": lambda manifest: manifest["sums"].update(squares="1"),
    "a great hash": lambda manifest: manifest["sums"].update(images=[2**70]),
    "no images": lambda manifest: manifest["sums"].update(images=[]),
    "counts that are cut": lambda manifest: manifest["sums"].update(matched=bombs(zlib.compress(bytes(416_000))[:-3])),
    "no counts": lambda manifest: manifest["sums"].update(matched=bombs(zlib.compress(bytes(416_000)))),
    "great counts": lambda manifest: manifest.update(mismatched=bombs(zlib.compress(b"\xff" * 7 + bytes(415_993)))),
    "a bomb": lambda manifest: manifest.update(mismatched=bombs(zlib.compress(bytes(500 << 20), 9))),
    "a time without zone": lambda manifest: manifest.update(started_at="2020-01-01T00:00:00"),
    "an endless time": lambda manifest: manifest["throughput"].update(seconds=1e300, rows_per_second=1e300),
    "another place": lambda manifest: manifest["output"].update(uri="/etc/hostname"),
    "other columns": lambda manifest: manifest.update(output_columns=["other", "columns"]),
    "a filtered step": lambda manifest: manifest.update(
        filtered={"output": manifest["output"], "min_score": 0.5, "rows": 1}
    ),
    "another request": lambda manifest: manifest["request"].update(output_key="text2"),
}


@pytest.fixture(scope="module")
def scored_once(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> ShardPlan:
    folder = tmp_path_factory.mktemp("shards") / "now"
    folder.mkdir()
    plan = plan_shards(data.request("rows.jsonl", folder / "out.jsonl", resume_point_rows=64), Storage(), shards=2)
    scored(plan)
    return plan


@pytest.fixture
def two_shards(scored_once: ShardPlan) -> Iterator[ShardPlan]:
    """A plan, both its shards scored; whatever becomes of them is undone."""
    folder = Path(scored_once.request.output).parent
    kept = folder.rename(folder.with_name("kept"))
    shutil.copytree(kept, folder)
    for index in range(2):  # a copy is another version
        output = scored_once.shard_output(index)
        found = find_output(Storage(), output)
        assert found is not None
        as_it_is = {"output": version(found).model_dump()}
        change(manifest_uri(output), methodcaller("update", as_it_is))
    yield scored_once
    shutil.rmtree(folder)
    kept.rename(folder)


def test_shards_that_nobody_has_changed_are_merged(two_shards: ShardPlan) -> None:
    assert merge_shards(two_shards.uri, Storage(), OWN).rows.total == 203


@pytest.mark.parametrize("forged", FORGED_SHARDS.values(), ids=FORGED_SHARDS)
def test_a_shards_manifest_that_cannot_be_is_as_if_there_was_none(
    two_shards: ShardPlan, forged: Callable[[Json], object]
) -> None:
    plan = two_shards
    change(manifest_uri(plan.shard_output(1)), forged)
    with pytest.raises(JobError, match="1 of 2 shards have no result that belongs to this plan: 00002-of-00002"):
        merge_shards(plan.uri, Storage(), OWN)


def test_a_manifest_of_a_later_version_is_merged(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=2)
    scored(plan)

    def later(manifest: Json) -> None:
        manifest["new"] = manifest["scores"]["skew"] = 0.5
        manifest["throughput"]["time_shares"] = {"think": 0.5}

    change(manifest_uri(plan.shard_output(1)), later)
    assert merge_shards(plan.uri, Storage(), OWN).rows.total == 203


@pytest.mark.parametrize("cell", ["abc", float("nan"), 7, [1], 10**400])
def test_a_cell_of_a_shard_that_is_no_score_ends_the_merge_in_words(data: DataSet, tmp_path: Path, cell: Any) -> None:
    wanted: EvaluationRequest = data.request(
        "rows.jsonl", tmp_path / "out.jsonl", min_score=0.4, filtered_output=f"{tmp_path}/kept.jsonl"
    )
    plan = plan_shards(wanted, Storage(), shards=2)
    scored(plan)
    output = plan.shard_output(1)
    first, _, rest = Path(output).read_text().partition("\n")
    row = {**json.loads(first), "clip_score": cell} if cell != 10**400 else {"clip_score": cell}
    text = "{" + ", ".join(f"{json.dumps(key)}: {_written(value)}" for key, value in row.items()) + "}"
    Path(output).write_text(f"{text}\n{rest}")
    found = find_output(Storage(), output)
    assert found is not None
    change(manifest_uri(output), lambda manifest: manifest.update(output=version(found).model_dump()))
    with pytest.raises(JobError, match=r"no score from 0 to 1|cannot be read|not valid|JSON"):
        merge_shards(plan.uri, Storage(), OWN)
    assert not (tmp_path / "out.jsonl").exists()


def _written(value: Any) -> str:
    return "1" + "0" * 400 if value == 10**400 else json.dumps(value)
