"""Gates are judged by what a manifest says, for whoever asks last, and say how far a step is from them."""

from __future__ import annotations

import json
import logging
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import JobError, RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.gates import doubts, verdicts
from clip_operator.proof.manifest import EvaluationManifest, read_manifest
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.steps import manifest_uri, report_uri
from clip_operator.storage import ObjectInfo, Storage
from tests.conftest import SHAPES
from tests.operators.manifests import CALIBRATION, made_up_manifest

BELOW = "the share of rows that score below the suggested threshold is 0.2500"


def judged(manifest: EvaluationManifest | None = None, **limits: Any) -> list[tuple[bool, str]]:
    manifest = manifest or made_up_manifest()
    request = EvaluationRequest.model_validate(manifest.request.model_dump() | limits)
    return [(verdict.passed, verdict.words) for verdict in verdicts(manifest, request)]


@pytest.mark.parametrize(
    ("limits", "passed", "words"),
    [
        ({"min_mean_score": 0.61}, False, "the mean score is 0.6000, below min_mean_score=0.61 by 0.0100"),
        ({"min_mean_score": 0.6}, True, "the mean score is 0.6000, just min_mean_score=0.6"),
        ({"min_auc": 0.9}, False, "the AUC is 0.8500, below min_auc=0.9 by 0.0500"),
        ({"min_auc": 0.7}, True, "the AUC is 0.8500, above min_auc=0.7 by 0.1500"),
        ({"max_below_threshold": 0.2}, False, f"{BELOW}, above max_below_threshold=0.2 by 0.0500"),
        ({"max_below_threshold": 0.5}, True, f"{BELOW}, below max_below_threshold=0.5 by 0.2500"),
        ({"min_mean_score": 0.60001}, False, "the mean score is 0.6000, below min_mean_score=0.60001 by 1e-05"),
    ],
)
def test_a_verdict_says_on_which_side_of_its_limit_a_step_is_and_by_how_much(
    limits: dict[str, Any], passed: bool, words: str
) -> None:
    assert judged(**limits) == [(passed, words)]


def test_a_number_that_rounds_to_its_limit_is_shown_with_all_its_digits() -> None:
    manifest = made_up_manifest(calibration={**CALIBRATION, "auc": 0.8999999})
    assert judged(manifest, min_auc=0.9) == [(False, "the AUC is 0.8999999, below min_auc=0.9 by 1e-07")]


def test_gates_that_are_not_set_have_no_verdict_and_of_several_each_has_one() -> None:
    assert judged() == []
    assert [passed for passed, _ in judged(min_mean_score=1, min_auc=0, max_below_threshold=0)] == [False, True, False]


def test_a_gate_that_nothing_can_be_said_of_is_not_passed() -> None:
    manifest = made_up_manifest(scores=None, calibration=None)
    mean, auc, below = judged(manifest, min_mean_score=0, min_auc=0, max_below_threshold=1)
    assert mean == (False, "min_mean_score=0 cannot be judged: no row has a score")
    assert auc[1].startswith("min_auc=0 cannot be judged: the manifest has no calibration")
    assert below[1].startswith("max_below_threshold=1 cannot be judged: the manifest has no calibration")


@pytest.mark.parametrize("value", [1.1, -0.1, "nan", "many", True, [0.5]])
def test_what_is_no_limit_is_refused_by_name(value: object) -> None:
    with pytest.raises(RequestError, match=r": min_auc: must be a number from 0 to 1, not "):
        parse_request({"input": "a.jsonl", "output": "b.jsonl", "min_auc": value})


WEAK = [
    ({"auc": 0.55}, "the AUC is 0.5500, below 0.6"),
    ({"false_accept_rate": 0.31}, "31.0 % of mismatched pairs reach it, more than 30.0 %"),
]


@pytest.mark.parametrize(("found", "why"), WEAK)
def test_a_gate_by_a_threshold_that_means_little_warns_or_is_not_passed(found: dict[str, float], why: str) -> None:
    manifest = made_up_manifest(calibration={**CALIBRATION, **found})
    limits = {"max_below_threshold": 0.5, "on_weak_threshold": "warn"}
    request = EvaluationRequest.model_validate(manifest.request.model_dump() | limits)
    assert [why in doubt for doubt in doubts(manifest, request)] == [True]
    assert [passed for passed, _ in judged(manifest, **limits)] == [True]
    ((passed, words),) = judged(manifest, **limits | {"on_weak_threshold": "fail"})
    assert not passed
    assert why in words
    assert judged(manifest, min_auc=0.5, on_weak_threshold="fail")[0][0], "the AUC is judged by no threshold"


def work_on(dataset: Path, folder: Path, **fields: Any) -> EvaluationRequest:
    places = {"input": f"{dataset}/captions.jsonl", "output": f"{folder}/out.jsonl", "image_root": str(dataset)}
    return parse_request({**places, "model": SHAPES, "resume_point_rows": 16, **fields})


def test_with_other_gates_a_complete_step_is_judged_anew_and_stays_as_it_is(
    shapes_dataset: Path, tmp_path: Path
) -> None:
    storage, work = Storage(), work_on(shapes_dataset, tmp_path, min_auc=0.1)
    first = evaluate(work, storage)
    before = (tmp_path / "out.jsonl").stat()
    again = evaluate(work.model_copy(update={"min_auc": 0.999}), storage)
    assert (tmp_path / "out.jsonl").stat() == before
    assert again.finished_at == first.finished_at
    assert [verdict.passed for verdict in verdicts(again)] == [False]
    assert read_manifest(storage, manifest_uri(work.output)) == again
    assert "0.999" in Path(report_uri(work.output)).read_text()


def test_a_report_is_judged_anew_also_by_who_would_write_none(shapes_dataset: Path, tmp_path: Path) -> None:
    work = work_on(shapes_dataset, tmp_path, min_auc=0.1)
    evaluate(work)
    evaluate(work.model_copy(update={"min_auc": 0.999, "report": False}))
    assert "below min_auc=0.999" in Path(report_uri(work.output)).read_text()


@pytest.mark.parametrize("moment", ["samples", "page"])
def test_the_report_of_a_run_that_replaces_the_output_meanwhile_stands(
    shapes_dataset: Path, tmp_path: Path, moment: str
) -> None:
    work = work_on(shapes_dataset, tmp_path, min_auc=0.1)
    evaluate(work)
    other = work.model_copy(update={"overwrite": True, "output_key": "another_score"})

    class Meanwhile(Storage):
        replaced = False

        def read(self, uri: str, *limits: Any) -> bytes:
            self.replace(uri, "samples", ".samples.json")
            return super().read(uri, *limits)

        def write(self, data: bytes, uri: str, *condition: Any) -> ObjectInfo:
            self.replace(uri, "page", ".report.html")
            return super().write(data, uri, *condition)

        def replace(self, uri: str, now: str, ending: str) -> None:
            if now == moment and uri.endswith(ending) and not self.replaced:
                self.replaced = True
                evaluate(other)

    with pytest.raises(JobError, match="another run has replaced"):
        evaluate(work.model_copy(update={"min_auc": 0.999}), Meanwhile())
    page = Path(report_uri(work.output)).read_text()
    assert "another_score" in page
    assert "0.999" not in page


@pytest.fixture
def meaningless(shapes_dataset: Path, tmp_path: Path) -> Path:
    """The demo's images with each other's captions."""
    rows = [json.loads(line) for line in (shapes_dataset / "captions.jsonl").read_text().splitlines()]
    texts = [row.get("text") for row in rows]
    random.Random(5).shuffle(texts)
    (tmp_path / "captions.jsonl").write_text(
        "".join(json.dumps({**row, "text": text}) + "\n" for row, text in zip(rows, texts, strict=True))
    )
    shutil.copytree(shapes_dataset / "images", tmp_path / "images")
    return tmp_path


def filtered(folder: Path, on_weak_threshold: str) -> EvaluationRequest:
    filtering = {"min_score": "threshold", "filtered_output": f"{folder}/kept.jsonl"}
    return work_on(folder, folder, on_weak_threshold=on_weak_threshold, max_error_rate=1, **filtering)


def test_a_filter_by_a_threshold_that_means_little_warns(meaningless: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "clip_operator")
    manifest = evaluate(filtered(meaningless, "warn"))
    assert manifest.filtered is not None
    assert "min_score is the suggested threshold" in caplog.text
    assert "which means little" in caplog.text
    # Asked for with more care, what is there already does not do.
    with pytest.raises(JobError, match=r"the suggested one, 0\.\d{4}, means little"):
        evaluate(filtered(meaningless, "fail"))


def test_a_filter_by_a_threshold_that_means_little_can_fail_the_job(meaningless: Path) -> None:
    before = sorted(meaningless.iterdir())
    with pytest.raises(JobError, match=r"means little: .*Nothing was written; give min_score as a number"):
        evaluate(filtered(meaningless, "fail"))
    assert [path for path in sorted(meaningless.iterdir()) if not path.name.startswith("out.jsonl.resume")] == before


def test_of_shards_the_merge_is_judged_and_looks_at_the_threshold(meaningless: Path) -> None:
    storage, work = Storage(), filtered(meaningless, "fail").model_copy(update={"min_mean_score": 0.999})
    plan = plan_shards(work, storage, shards=2)
    for index in range(2):
        assert verdicts(evaluate(plan.nth_request(index, None), storage)) == []
    with pytest.raises(JobError, match="means little"):
        merge_shards(plan.uri, storage, None)
    merged = merge_shards(plan.uri, storage, None, own=lambda planned: planned.judged_as(filtered(meaningless, "warn")))
    assert merged.filtered is not None
    assert verdicts(merged) == []
