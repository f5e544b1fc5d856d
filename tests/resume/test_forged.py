"""What stands beside an output was written by anybody: what cannot be is as if it was not there, and no traceback."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_operator import cli
from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.standing import find_output, version
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.resume import find_leftovers
from clip_operator.steps import claim_uri, manifest_uri, report_uri, resume_prefix
from clip_operator.storage import Storage
from tests.resume.test_resume import SEGMENT, die_after, pictures, request, undisturbed

__all__ = ["pictures", "undisturbed"]

Json = dict[str, Any]

FORGED_POINTS: dict[str, Callable[[Json], object]] = {
    "not a number": lambda point: point["scores"].__setitem__(3, float("nan")),
    "infinite": lambda point: point["scores"].__setitem__(3, float("-inf")),
    "more than 1": lambda point: point["scores"].__setitem__(3, 1.5),
    "less than 0": lambda point: point["scores"].__setitem__(3, -0.5),
    "a long number": lambda point: point["scores"].__setitem__(3, int("9" * 400)),
    "too many rows": lambda point: point.update(
        scores=[0.5] * 99,
        mismatched=point["mismatched"][:60] * 99,
        failures=[],
        scored_by={**point["scored_by"], "rows": 99},
    ),
    "rows that are not there": lambda point: point.update(truncated=[10**9]),
    "rows before the first": lambda point: point.update(truncated=[-1]),
    "a sentence of a whole text": lambda point: point.update(least=[{"row": 1, "text": "a", "score": 0.5}]),
    "a score of a sentence": lambda point: point.update(
        truncated=[1], least=[{"row": 1, "text": "a", "score": float("nan")}]
    ),
    "several scores of no row": lambda point: point.update(several=[{"row": 10**9, "scores": [0.5, 0.5]}]),
    "several scores with another mean": lambda point: point.update(several=[{"row": 0, "scores": [1, 1]}]),
    "more scores than a row may have": lambda point: point.update(
        several=[{"row": 0, "scores": [point["scores"][0]] * 101}]
    ),
    "a run": lambda point: point.update(run="no hexadecimal digits"),
    "a long run": lambda point: point.update(run="0" * 10_000),
    "a device": lambda point: point["scored_by"].update(device="x" * 100_000),
    "libraries": lambda point: point["scored_by"].update(libraries={str(n): "1" for n in range(5000)}),
    "other rows": lambda point: point["scored_by"].update(rows=-4),
    "another segment": lambda point: point.update(first_row=5 * SEGMENT),
    "a time": lambda point: point.update(saved_at="12345-01-01T00:00:00Z"),
    "size": lambda point: point.update(more=[[]] * 200_000),
}


@pytest.fixture(scope="module")
def left(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a try that was killed has left beside its output, out.jsonl: two resume points."""
    folder = tmp_path_factory.mktemp("left") / "data"
    folder.mkdir()
    die_after(2, request(pictures, folder / "out.jsonl"), folder.parent)
    return folder


@pytest.mark.parametrize("forged", FORGED_POINTS.values(), ids=FORGED_POINTS)
def test_a_resume_point_that_cannot_be_is_scored_again(
    left: Path, pictures: Path, undisturbed: bytes, caplog: pytest.LogCaptureFixture, forged: Callable[[Json], object]
) -> None:
    """The first of two, in the very place where it was left, for the place is of the work."""
    folder = left.with_name("now")
    shutil.rmtree(folder, ignore_errors=True)
    left.rename(folder)
    try:
        shutil.copytree(folder, left)
        work = request(pictures, left / "out.jsonl", reuse=f"{left}/store")
        first, _ = sorted(Path(resume_prefix(work.output)).rglob("*.json"))
        point = json.loads(first.read_text())
        forged(point)
        first.write_text(json.dumps(point))
        manifest = evaluate(work)
        assert manifest.rows.resumed == SEGMENT - 1, "the other one is taken, but for the image that is not there"
        assert Path(work.output).read_bytes() == undisturbed
        assert "is damaged or not ours: its rows are scored again" in caplog.text
    finally:
        shutil.rmtree(left)
        folder.rename(left)


@pytest.mark.parametrize("name", ["x.json", "00000000000a.json", "9999999999999999.json"])
def test_names_that_are_none_of_a_resume_point_are_passed_over(
    pictures: Path, undisturbed: bytes, tmp_path: Path, name: str
) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    die_after(1, work, tmp_path)
    [point] = Path(resume_prefix(work.output)).rglob("*.json")
    (point.parent / name).write_text("[]")
    evaluate(work)
    assert Path(work.output).read_bytes() == undisturbed


FORGED_MANIFESTS: dict[str, Callable[[Json], object]] = {
    "no mean": lambda manifest: manifest["scores"].update(mean=float("nan")),
    "a great mean": lambda manifest: manifest["scores"].update(mean=7),
    "an endless AUC": lambda manifest: manifest["calibration"].update(auc=float("inf")),
    "no interval": lambda manifest: manifest["calibration"].update(auc_interval=[float("nan"), 1]),
    "bars of no width": lambda manifest: manifest["calibration"]["histograms"].update(bin_width=0),
    "bars that count below zero": lambda manifest: manifest["calibration"]["histograms"].update(matched=[-1]),
    "rows": lambda manifest: manifest["rows"].update(failed=0),
    "other columns": lambda manifest: manifest.update(output_columns=["text"]),
    "no columns": lambda manifest: manifest.update(output_columns=[]),
    "another output": lambda manifest: manifest["request"].update(output="/elsewhere/out.jsonl"),
    "a filtered output": lambda manifest: manifest["request"].update(min_score=0.5, filtered_output="/elsewhere/a.csv"),
    "size": lambda manifest: manifest.update(more="x" * (5 << 20)),
}


@pytest.fixture(scope="module")
def done(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluationRequest, bytes]:
    """Work that is done, and its manifest."""
    work = request(pictures, tmp_path_factory.mktemp("done") / "out.jsonl")
    evaluate(work)
    return work, Path(manifest_uri(work.output)).read_bytes()


@pytest.mark.parametrize("forged", FORGED_MANIFESTS.values(), ids=FORGED_MANIFESTS)
def test_a_manifest_that_cannot_be_proves_nothing(
    done: tuple[EvaluationRequest, bytes], forged: Callable[[Json], object]
) -> None:
    work, whole = done
    manifest = json.loads(whole)
    forged(manifest)
    Path(manifest_uri(work.output)).write_text(json.dumps(manifest))
    with pytest.raises(JobError, match="exists already and is not this job's: no manifest says that this job wrote it"):
        evaluate(work)


def test_a_manifest_that_cannot_be_keeps_nobody_from_replacing_the_output(pictures: Path, tmp_path: Path) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    evaluate(work)
    for text in ("x" * (5 << 20), "[" * 100_000, '{"a": NaN}'):
        Path(manifest_uri(work.output)).write_text(text)
        again = evaluate(work.model_copy(update={"overwrite": True}))
        assert again.scores is not None


def test_a_report_is_written_beside_the_manifest_wherever_that_says_that_the_output_is(
    pictures: Path, tmp_path: Path
) -> None:
    """A person who downloads both makes it on his own disk."""
    theirs = tmp_path / "theirs"
    work = request(pictures, theirs / "out.jsonl")
    evaluate(work)
    Path(report_uri(work.output)).unlink()
    shutil.copytree(theirs, tmp_path / "mine")
    assert cli.main(["report", f"{tmp_path}/mine/out.jsonl.manifest.json"]) == 0
    assert not Path(report_uri(work.output)).exists()
    assert "<img" in (tmp_path / "mine/out.jsonl.report.html").read_text(), "with the samples"


def forge_output(work: EvaluationRequest, text: str) -> None:
    """Put another text in the place of an output, and have its manifest say that this is what was written."""
    Path(work.output).write_text(text)
    found = find_output(Storage(), work.output)
    assert found is not None
    manifest = json.loads(Path(manifest_uri(work.output)).read_text())
    manifest["output"] = version(found).model_dump()
    Path(manifest_uri(work.output)).write_text(json.dumps(manifest))


@pytest.mark.parametrize("cell", ['"good"', "NaN", "17", "-1", "[0.5]", "1e999", "true"])
def test_a_cell_that_is_no_score_is_scored_again(pictures: Path, tmp_path: Path, cell: str) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    evaluate(work)
    text = Path(work.output).read_text()
    forge_output(work, re.sub(r'("clip_score": ?)[^,}]+', rf"\g<1>{cell}", text, count=1))
    evaluate(work.model_copy(update={"rescore": "failed"}))
    assert Path(work.output).read_text() == text


def test_an_output_with_too_few_rows_is_scored_to_its_end(pictures: Path, undisturbed: bytes, tmp_path: Path) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    evaluate(work)
    forge_output(work, "".join(Path(work.output).read_text().splitlines(keepends=True)[:40]))
    evaluate(work.model_copy(update={"rescore": "failed"}))
    assert Path(work.output).read_bytes() == undisturbed


ME = Requester(dag_id="d", run_id="r", task_id="t", map_index=0)

ABSURD_CLAIMS = {
    "nobody": '{"requested_by": null, "claimed_at": "9999-12-31T23:59:59Z"}',
    "long gone": '{"requested_by": null, "claimed_at": "0001-01-01T00:00:00Z"}',
    "another's": '{"requested_by": {"dag_id": "x", "run_id": "r", "task_id": "t"}, '
    '"claimed_at": "9999-01-01T00:00:00Z"}',
    "another run's": '{"requested_by": {"dag_id": "d", "run_id": "q", "task_id": "t", "map_index": 7}, '
    '"claimed_at": "9999-01-01T00:00:00Z"}',
    "no claim": '{"requested_by": 7}',
    "no time": '{"requested_by": null, "claimed_at": 1e300}',
    "depth": "[" * 100_000,
    "size": '{"requested_by": null, "claimed_at": "2020-01-01T00:00:00Z", "more": "' + "x" * (2 << 20) + '"}',
    "nothing": "",
}


@pytest.mark.parametrize(
    "requester", [None, ME, ME.model_copy(update={"map_index": -1})], ids=["none", "mapped", "one"]
)
@pytest.mark.parametrize("claim", ABSURD_CLAIMS.values(), ids=ABSURD_CLAIMS)
def test_no_claim_of_another_keeps_a_job_from_writing_where_nothing_stands(
    pictures: Path, tmp_path: Path, claim: str, requester: Requester | None
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join((pictures / "rows.jsonl").read_text().splitlines(True)[:8]))
    work = request(pictures, tmp_path / "out.jsonl", input=f"{tmp_path}/rows.jsonl", report=False)
    work = work.model_copy(update={"requested_by": requester})
    Path(claim_uri(work.output)).write_text(claim)
    assert [each.output for each in find_leftovers(Storage(), work.output)] in ([work.output], [])
    assert evaluate(work).rows.total == 8
    assert not Path(claim_uri(work.output)).exists()


@pytest.mark.parametrize("claim", [each for name, each in ABSURD_CLAIMS.items() if name != "another run's"])
def test_no_claim_of_another_has_a_job_write_over_what_stands_there(pictures: Path, tmp_path: Path, claim: str) -> None:
    work = request(pictures, tmp_path / "out.jsonl").model_copy(update={"requested_by": ME})
    (tmp_path / "out.jsonl").write_text("theirs")
    Path(claim_uri(work.output)).write_text(claim)
    with pytest.raises(JobError, match="exists already and is not this job's"):
        evaluate(work)
    assert (tmp_path / "out.jsonl").read_text() == "theirs"


def test_the_claim_of_another_instance_of_the_task_holds_for_its_run_alone(pictures: Path, tmp_path: Path) -> None:
    """Whoever forges one ends a job with words; he could as well have put something in the place of the output."""
    work = request(pictures, tmp_path / "out.jsonl").model_copy(update={"requested_by": ME})
    other = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 5}
    Path(claim_uri(work.output)).write_text(json.dumps({"requested_by": other, "claimed_at": "9999-01-01T00:00:00Z"}))
    with pytest.raises(JobError, match="is the output of instance 5 of this mapped task in this run"):
        evaluate(work)
    next_run = work.model_copy(update={"requested_by": ME.model_copy(update={"run_id": "next"})})
    assert evaluate(next_run).rows.total == 300


def test_what_is_left_is_shown_whatever_it_holds(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for point in left.rglob("0*.json"):
        point.write_text("[" * 1000)
    assert cli.main(["leftovers", f"{left}/"]) == 0
    assert "resume points: 2 (2,000 bytes), up to" in capsys.readouterr().out
