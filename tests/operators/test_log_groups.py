"""What is folded away in a task's log: never an error."""

from __future__ import annotations

import logging

import pytest

from clip_operator.operators.log_groups import log_group, log_request
from clip_operator.request import EvaluationRequest


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "clip_operator")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in log.records]


def test_a_group_holds_what_is_logged_in_its_block(log: pytest.LogCaptureFixture) -> None:
    with log_group("Scoring"):
        logging.getLogger("clip_operator.scoring").warning("Row 14 has no score")
    logging.getLogger("clip_operator.job.evaluation").error("not of the group")
    assert lines(log) == ["::group::Scoring", "Row 14 has no score", "::endgroup::", "not of the group"]


def test_data_neither_ends_a_group_nor_begins_one_nor_breaks_a_line(log: pytest.LogCaptureFixture) -> None:
    with log_group("Scoring"):
        logging.getLogger("clip_operator.scoring").warning("%s has no score", "a\n::endgroup::\x1b[2K\u2028::group::b")
    said = r"a\n\x3a:endgroup::\x1b[2K\u2028\x3a:group::b has no score"
    assert lines(log) == ["::group::Scoring", said, "::endgroup::"]


def test_text_of_every_language_stays_as_it_is(log: pytest.LogCaptureFixture) -> None:
    said = "a 'caption': \u3000\u732b\u304c \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469"
    logging.getLogger("clip_operator.scoring").info("%s", said)
    assert lines(log) == [said]


def test_a_group_ends_before_the_first_error(log: pytest.LogCaptureFixture) -> None:
    with log_group("Scoring"):
        logging.getLogger("clip_operator.scoring").info("begun")
        logging.getLogger("clip_operator.scoring").error("Too many rows have no score")
        logging.getLogger("clip_operator.scoring").error("The reasons")
    assert lines(log) == ["::group::Scoring", "begun", "::endgroup::", "Too many rows have no score", "The reasons"]


def test_a_group_ends_with_its_block_also_if_that_fails(log: pytest.LogCaptureFixture) -> None:
    before = list(logging.getLogger("clip_operator").handlers)
    with pytest.raises(ValueError, match="broken"), log_group("Scoring"):
        raise ValueError("broken")
    assert lines(log) == ["::group::Scoring", "::endgroup::"]
    assert logging.getLogger("clip_operator").handlers == before, "none is left behind"


def test_a_request_is_told_without_what_is_as_always(log: pytest.LogCaptureFixture) -> None:
    log_request(EvaluationRequest(input="in.jsonl", output="out.jsonl", cosine_key="cosine"))
    assert lines(log) == [
        "::group::What was asked",
        "input: in.jsonl",
        "output: out.jsonl",
        "cosine_key: cosine",
        "::endgroup::",
    ]
