"""What people are told to install is what is meant: never this package's name from an index, where it is not."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from demo.airflow_home import REPOSITORY

TEXTS = [
    *(REPOSITORY / "plugins").rglob("*.py"),
    *(REPOSITORY / "docs").rglob("*.md"),
    *REPOSITORY.glob("*.md"),
]
# up to the end of the command: a quoted name may be the next line's, in Python
ADVICE = re.compile(r"pip install[\s\"']+(?:--?[\w-]+[\s\"']+)*([A-Za-z][\w.-]*(?:\[[\w,]+\])?(?:[<>=!~]+[\w.]+)?)")
DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def advice() -> list[str]:
    return [name for text in TEXTS for name in ADVICE.findall(text.read_text(encoding="utf-8"))]


def test_nobody_is_told_to_ask_an_index_for_this_package() -> None:
    found = advice()
    assert "apache-airflow-providers-amazon" in found
    assert [name for name in found if name.lower().replace("_", "-").startswith("airflow-clip-operator")] == []


@pytest.mark.parametrize("extra", ["kubernetes", "datasets"])
def test_a_version_that_is_told_is_the_one_that_is_needed(extra: str) -> None:
    (line,) = DECLARED[extra]
    needed = Requirement(line)
    said = [Requirement(name) for name in advice() if Requirement(name).name == needed.name]
    assert [each.specifier for each in said] == [needed.specifier] * len(said) != []
