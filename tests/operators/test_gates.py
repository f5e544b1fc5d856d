"""Gates say in words which limits a step does not keep, and refuse what is no limit."""

from __future__ import annotations

from typing import Any

import pytest

from clip_operator.errors import RequestError
from clip_operator.operators.gates import Gates
from tests.operators.manifests import made_up_manifest


@pytest.mark.parametrize(
    ("limits", "breach"),
    [
        ({"min_mean_score": 0.61}, "the mean score is 0.6000, below min_mean_score=0.61"),
        ({"min_auc": 0.9}, "the AUC is 0.8500, below min_auc=0.9"),
        (
            {"max_below_threshold": 0.2},
            "the share of rows that score below the suggested threshold is 0.2500, above max_below_threshold=0.2",
        ),
        ({"min_mean_score": 0.60001}, "the mean score is 0.6000, below min_mean_score=0.60001"),
    ],
)
def test_a_step_beyond_a_limit_is_said_to_be(limits: dict[str, float], breach: str) -> None:
    assert Gates(**limits).breaches(made_up_manifest()) == [breach]


def test_a_number_that_rounds_to_its_limit_is_shown_with_all_its_digits() -> None:
    calibration = {**made_up_manifest().model_dump()["calibration"], "auc": 0.8999999}
    manifest = made_up_manifest(calibration=calibration)
    assert Gates(min_auc=0.9).breaches(manifest) == ["the AUC is 0.8999999, below min_auc=0.9"]


def test_a_step_that_just_keeps_its_limits_passes_and_so_does_one_without_any() -> None:
    manifest = made_up_manifest()
    assert Gates(min_mean_score=0.6, min_auc=0.85, max_below_threshold=0.25).breaches(manifest) == []
    assert Gates().breaches(made_up_manifest(scores=None, calibration=None)) == []


def test_several_breaches_are_all_named() -> None:
    assert len(Gates(min_mean_score=1, min_auc=1, max_below_threshold=0).breaches(made_up_manifest())) == 3


def test_a_gate_that_nothing_can_be_said_of_is_not_passed() -> None:
    manifest = made_up_manifest(scores=None, calibration=None)
    mean, auc, below = Gates(min_mean_score=0, min_auc=0, max_below_threshold=1).breaches(manifest)
    assert mean == "min_mean_score=0 cannot be judged: no row has a score"
    assert auc.startswith("min_auc=0 cannot be judged: the manifest has no calibration")
    assert below.startswith("max_below_threshold=1 cannot be judged: the manifest has no calibration")


def of(**limits: Any) -> Gates:
    return Gates.of({"min_mean_score": None, "min_auc": None, "max_below_threshold": None, **limits})


def test_templates_make_strings_of_numbers_and_none() -> None:
    assert of(min_mean_score="0.5", min_auc="None", max_below_threshold=0) == Gates(0.5, None, 0)


@pytest.mark.parametrize("value", [1.1, -0.1, "nan", "many", True, [0.5]])
def test_what_is_no_limit_is_refused_by_name(value: object) -> None:
    with pytest.raises(RequestError, match=r"^min_auc must be a number from 0 to 1, not "):
        of(min_auc=value)
