"""How many rows may be without a score, and what a person is told where there are more."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError, Reason, RowError
from clip_operator.request import ErrorBudget, parse_request
from clip_operator.scoring import Outcomes, RowResult

SCORED = RowResult(0.5)


def failed(reason: Reason, detail: str = "why") -> RowResult:
    return RowResult(None, error=RowError(reason, detail))


def outcomes(rate: float, **rates: float) -> Outcomes:
    limits = {"max_error_rate": rate, "max_error_rates": rates}
    return Outcomes(parse_request({"input": "s3://b/data/a.jsonl", "output": "s3://b/b.jsonl", **limits}))


def score(counted: Outcomes, results: list[RowResult]) -> None:
    counted.scores(results, [None] * len(results))


@settings(deadline=None)
@given(rows=st.integers(1, 5000), percent=st.integers(0, 100))
def test_a_share_that_is_exactly_the_limit_is_allowed_and_one_row_more_is_not(rows: int, percent: int) -> None:
    allowed = rows * percent // 100
    budget = ErrorBudget(percent / 100, {})
    assert not budget.excesses({"text_empty": allowed}, rows)
    if allowed < rows:
        assert budget.excesses({"text_empty": allowed, "image_missing": 1}, rows)


def test_a_limit_for_one_reason_holds_beside_the_limit_for_all() -> None:
    counted = outcomes(0.5, image_unavailable=0.01, text_empty=0.2)
    score(counted, [SCORED] * 95 + [failed(Reason.TEXT_EMPTY)] * 3 + [failed(Reason.IMAGE_UNAVAILABLE)] * 2)
    message = r"image_unavailable: 2 of the 100 rows \(2 %\), more than the 1 % of max_error_rates\. Nothing"
    with pytest.raises(JobError, match=message) as error:
        counted.check()
    assert "text_empty" not in str(error.value)


def test_no_rows_are_no_errors() -> None:
    outcomes(0).check()


def test_too_many_failures_are_shown_in_a_table_with_examples(caplog: pytest.LogCaptureFixture) -> None:
    counted = outcomes(0.1, image_not_found=0.05)
    missing = [failed(Reason.IMAGE_NOT_FOUND, f"there is no image at s3://b/{i}.jpg") for i in range(10)]
    score(counted, [SCORED] * 40 + missing + [failed(Reason.TEXT_EMPTY, "the caption is empty")] + [SCORED] * 13)
    caplog.clear()
    with pytest.raises(
        JobError, match=r"11 of the 64 rows \(17\.2 %\), more than the 10 % of max_error_rate; image_not"
    ):
        counted.check()
    assert [record.message for record in caplog.records] == [
        "reason                  rows    share  allowed  examples",
        "image_not_found           10   15.6 %      5 %! row 41: there is no image at s3://b/0.jpg",
        "                                                row 42: there is no image at s3://b/1.jpg",
        "                                                row 43: there is no image at s3://b/2.jpg",
        "text_empty                 1    1.6 %           row 51: the caption is empty",
        "all                       11   17.2 %     10 %!",
    ]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_a_few_rows_at_the_start_say_little() -> None:
    counted = outcomes(0.1)
    score(counted, [SCORED] * 499 + [failed(Reason.TEXT_EMPTY)] * 500)
    counted.check_so_far()
    score(counted, [SCORED])
    with pytest.raises(JobError, match=r"500 of the first 1,000 rows \(50 %\), more than the 10 % of max_error_rate"):
        counted.check_so_far()


@pytest.mark.parametrize(
    ("reasons", "advice"),
    [
        (
            [Reason.IMAGE_NOT_FOUND],
            "Check the column 'image_path', and image_root: relative image paths start at s3://b/data",
        ),
        ([Reason.IMAGE_UNREADABLE], "Check the column 'image_path'"),
        ([Reason.TEXT_MISSING, Reason.TEXT_INVALID], "Check the column 'text'"),
        ([Reason.TEXT_EMPTY, Reason.IMAGE_MISSING], "Check the column 'image_path' and the column 'text'"),
    ],
)
def test_where_no_row_is_scored_what_is_named_to_check_may_be_the_cause(reasons: list[Reason], advice: str) -> None:
    counted = outcomes(1)
    score(counted, [failed(reason) for reason in reasons])
    with pytest.raises(JobError, match="nothing was written") as told:
        counted.check()
    assert str(told.value).endswith(f". {advice}")
