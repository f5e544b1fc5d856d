"""Wrong DAGs are found without running them, and no right one is blamed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from clip_operator.errors import RequestError
from clip_operator.testing import Finding, assert_dags_valid, check_dags, examine_dags
from demo.airflow_home import REPOSITORY
from tests.testing.right import RIGHT
from tests.testing.wrong import HEAD, WRONG

pytestmark = pytest.mark.every_airflow


def write(folder: Path, bodies: dict[str, str]) -> Path:
    """Write the files of DAGs; return their folder."""
    for name, body in bodies.items():
        (folder / f"{name}.py").write_text(HEAD.format(name=name) + body)
    return folder


@pytest.fixture(scope="module")
def of_wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """What is found, by file."""
    found = defaultdict(list)
    for finding in check_dags(
        write(tmp_path_factory.mktemp("wrong"), {name: body for name, (body, _) in WRONG.items()})
    ):
        found[finding.file].append(finding)
    return found


@pytest.fixture(scope="module")
def of_right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What is found, by file: that there are findings of all files, says that all were read."""
    folder = write(tmp_path_factory.mktemp("right"), RIGHT)
    (folder / "templates").mkdir()
    (folder / "templates" / "column.txt").write_text("caption")
    examined = examine_dags(folder)
    found: dict[str, list[str]] = {file: [] for file in examined.seconds}
    for finding in examined.findings:
        found[finding.file].append(str(finding))
    return found


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_dag_is_found(of_wrong: dict[str, list[Finding]], name: str) -> None:
    told = [str(finding) for finding in of_wrong[f"{name}.py"]]
    assert any(re.search(WRONG[name][1], line) for line in told), told
    assert all("\n" not in line and line.startswith(f"{name}.py: ") for line in told)
    assert len(told) == 1, "one mistake, one line"
    assert "hush" not in "".join(told)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_dag_is_not_blamed(of_right: dict[str, list[str]], name: str) -> None:
    assert of_right[f"{name}.py"] == []


def test_a_finding_names_dag_and_task(of_wrong: dict[str, list[Finding]]) -> None:
    [finding] = of_wrong["unknown_filter.py"]
    assert (finding.dag_id, finding.task_id) == ("unknown_filter", "score")
    assert str(finding).startswith("unknown_filter.py: unknown_filter score: file_name_prefix: ")


def test_the_projects_own_dags_are_right() -> None:
    assert_dags_valid(REPOSITORY / "dags")


def test_a_test_fails_with_a_line_for_each_finding(tmp_path: Path) -> None:
    write(tmp_path, {"a": "one(gpus=1)", "b": 'one(file_name_prefix="{{ x }}")'})
    with pytest.raises(AssertionError, match=r"DAGs are wrong:\na\.py: .*gpus.*\nb\.py: b score: .*'x'"):
        assert_dags_valid(tmp_path)
    assert [finding.file for finding in check_dags(tmp_path / "b.py")] == ["b.py"], "of one file"


def test_a_folder_that_is_not_there_is_no_folder_without_faults(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no folder or file"):
        check_dags(tmp_path / "no-such")


def test_the_command_says_it_in_lines_and_in_its_exit_code(tmp_path: Path) -> None:
    def run(*folders: Path) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "clip_operator", "check-dags", *map(str, folders)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    write(tmp_path / "right", {"plain": RIGHT["plain"]})
    write(tmp_path / "wrong", {"filter": 'one(file_name_prefix="{{ ds | nodash }}")'})
    code, out, log = run(tmp_path / "right")
    assert (code, out) == (0, "")
    assert "Files: 1; findings: 0; plain.py took longest to read, " in log
    assert "Files: 1; findings: 0; plain.py took longest to read, " in run(tmp_path / "right" / "plain.py")[2]
    code, out, _ = run(tmp_path / "right", tmp_path / "wrong")
    assert code == 1
    assert len(out.splitlines()) == 1
    assert out.startswith("filter.py: filter score: file_name_prefix: the template ")
    assert run(tmp_path / "no-such")[0] == 2
