"""With an administrator's key, what others have written is as if it was not there; without one nothing changes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Context

from clip_operator.errors import JobError
from clip_operator.images.workers.process import WorkerProcess
from clip_operator.job.evaluation import evaluate
from clip_operator.operators.task_instance import told_to_airflow
from clip_operator.proof.signing import VARIABLE, environment_without_key
from clip_operator.proof.standing import find_output, proof, version
from clip_operator.request import EvaluationRequest
from clip_operator.resume import find_leftovers
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.steps import manifest_uri, resume_prefix
from clip_operator.storage import ObjectInfo, Storage
from tests.resume.test_resume import SEGMENT, pictures, request, undisturbed

__all__ = ["pictures", "undisturbed"]

KEY = "an administrator's key that no DAG knows"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def left_by_a_try(points: int, work: EvaluationRequest) -> None:
    """Have a try end when it has left so many resume points, in this process: with its key, or without one."""

    class Dies(Storage):
        saved = 0

        def write(self, *arguments: Any) -> ObjectInfo:
            info = super().write(*arguments)
            self.saved += ".resume/" in arguments[1]
            if self.saved == points:
                raise KeyboardInterrupt
            return info

    with pytest.raises(KeyboardInterrupt):
        evaluate(work, Dies())


def test_signed_work_is_recognised_with_the_key_and_without_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    monkeypatch.setenv(VARIABLE, KEY)
    done = evaluate(work)
    assert evaluate(work) == done == proof(Storage(), work.output)
    document = json.loads(Path(manifest_uri(work.output)).read_text())
    assert document["signature"].startswith("hmac-sha256:")
    monkeypatch.delenv(VARIABLE)
    assert evaluate(work) == done
    monkeypatch.setenv(VARIABLE, "another key")
    with pytest.raises(JobError, match="no manifest says that this job wrote it"):
        evaluate(work)


@pytest.mark.usefixtures("key")
def test_a_manifest_that_was_changed_or_copied_proves_nothing(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    evaluate(work)
    path = Path(manifest_uri(work.output))
    whole = path.read_text()
    path.write_text(whole.replace('"mean": 0', '"mean": 0.1e-', 1))
    assert proof(Storage(), work.output) is None
    path.write_text(whole)
    assert proof(Storage(), work.output) is not None
    (tmp_path / "other").mkdir()
    for source in (path, Path(work.output)):
        shutil.copy(source, tmp_path / "other" / source.name)
    moved = tmp_path / "other" / "out.jsonl"
    found = find_output(Storage(), str(moved))
    assert found is not None
    copied = json.loads(whole)
    copied["output"], copied["request"]["output"] = version(found).model_dump(), str(moved)
    (tmp_path / "other" / path.name).write_text(json.dumps(copied, separators=(",", ":")))
    assert proof(Storage(), str(moved)) is None
    assert "is not signed with the key in CLIP_OPERATOR_SIGNING_KEY, so it proves nothing" in caplog.text


def test_a_resume_point_without_a_signature_is_scored_again_and_one_with_it_is_taken(
    pictures: Path, undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, first, then, resumed in [("a", KEY, KEY, True), ("b", "", KEY, False), ("c", KEY, "", True)]:
        work = request(pictures, tmp_path / f"{name}.jsonl")
        monkeypatch.setenv(VARIABLE, first)
        left_by_a_try(1, work)
        monkeypatch.setenv(VARIABLE, then)
        assert evaluate(work).rows.resumed == (SEGMENT if resumed else 0)
        assert Path(work.output).read_bytes() == undisturbed


@pytest.mark.usefixtures("key")
def test_a_resume_point_is_signed_for_its_segment(pictures: Path, undisturbed: bytes, tmp_path: Path) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    left_by_a_try(3, work)
    first, second, third = sorted(Path(resume_prefix(work.output)).rglob("*.json"))
    second.write_text(third.read_text().replace(f'"first_row":{2 * SEGMENT}', f'"first_row":{SEGMENT}'))
    shutil.copy(first, third)
    assert [each.output for each in find_leftovers(Storage(), work.output)] == [work.output]
    assert evaluate(work).rows.resumed == SEGMENT
    assert Path(work.output).read_bytes() == undisturbed


def test_a_plan_and_shards_without_a_signature_are_not_merged(
    pictures: Path, undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    plan = plan_shards(work, Storage(), shards=2)
    monkeypatch.setenv(VARIABLE, KEY)
    with pytest.raises(JobError, match="is not what the plan task has written there; clear the plan task"):
        merge_shards(plan.uri, Storage(), None)
    plan = plan_shards(work, Storage(), shards=2)
    evaluate(plan.shard_request(plan.names[0], None))
    monkeypatch.delenv(VARIABLE)
    evaluate(plan.shard_request(plan.names[1], None))
    monkeypatch.setenv(VARIABLE, KEY)
    with pytest.raises(JobError, match="1 of 2 shards have no result that belongs to this plan: 00002-of-00002"):
        merge_shards(plan.uri, Storage(), None)
    Path(plan.shard_output(1)).unlink()
    evaluate(plan.shard_request(plan.names[1], None))
    merge_shards(plan.uri, Storage(), None)
    assert Path(work.output).read_bytes() == undisturbed


def test_scores_without_a_signature_are_scored_again_and_stored_with_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def work(name: str) -> EvaluationRequest:
        return request(pictures, tmp_path / name, reuse=f"{tmp_path}/scores", report=False)

    evaluate(work("a.jsonl"))
    monkeypatch.setenv(VARIABLE, KEY)
    assert evaluate(work("b.jsonl")).rows.reused == 0
    assert caplog.text.count("is left out and will be written anew: it is not signed") == 1, "said once"
    scored = evaluate(work("c.jsonl")).rows
    assert scored.reused == scored.scored > 0
    monkeypatch.delenv(VARIABLE)
    assert evaluate(work("d.jsonl")).rows.reused == scored.scored
    packs = [path for path in (tmp_path / "scores").rglob("*") if path.is_file() and "packs" in str(path)]
    for path in packs[1:]:
        path.write_bytes(packs[0].read_bytes())
    monkeypatch.setenv(VARIABLE, KEY)
    assert evaluate(work("e.jsonl")).rows.reused < scored.scored, "a pack is signed for its own name"


@pytest.mark.usefixtures("key")
def test_processes_that_decode_what_others_wrote_are_not_given_the_key(tmp_path: Path) -> None:
    assert VARIABLE not in environment_without_key()
    with (tmp_path / "memory").open("w+b") as memory:
        worker = WorkerProcess(memory.fileno(), 0)
        try:
            assert KEY.encode() not in Path(f"/proc/{worker.pid}/environ").read_bytes()
        finally:
            worker.kill()


def test_the_key_of_airflows_configuration_counts_and_the_environments_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("AIRFLOW__CLIP_OPERATOR__SIGNING_KEY", KEY)
    with told_to_airflow(Context()):
        assert os.environ[VARIABLE] == KEY
        with told_to_airflow(Context()):
            pass
        assert os.environ[VARIABLE] == KEY
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "own")
    with told_to_airflow(Context()):
        assert os.environ[VARIABLE] == "own"
