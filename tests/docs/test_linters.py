"""What runs before a commit, and what a hosted workflow runs, is what `make lint` and `.ci/run` do."""

from __future__ import annotations

import re

import yaml

from tests.docs.pages import text_of


def test_a_commit_is_checked_by_what_make_lint_runs() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", text_of("Makefile"), re.MULTILINE)
    assert recipe is not None
    (repository,) = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    assert [hook["entry"] for hook in repository["hooks"]] == commands


def test_the_hosted_workflow_has_a_job_for_each_target_of_continuous_integration() -> None:
    default = re.search(r"\|\| set -- (.+)$", text_of(".ci/run"), re.MULTILINE)
    assert default is not None
    job = yaml.safe_load(text_of(".github/workflows/ci.yml"))["jobs"]["ci"]
    assert job["strategy"]["matrix"]["target"] == default[1].split()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run ${{ matrix.target }}"]
