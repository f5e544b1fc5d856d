"""What names a cluster for the tests that need one is documented."""

from __future__ import annotations

import re

from demo.airflow_home import REPOSITORY
from tests.docs.pages import text_of


def test_the_variables_that_name_a_cluster_are_those_that_are_read() -> None:
    section = text_of("CONTRIBUTING.md").partition("## On a real cluster")[2].partition("\n## ")[0]
    told = set(re.findall(r"`((?:CLIP_CLUSTER|AWS)_\w+)`", section))
    code = "".join(path.read_text() for path in (REPOSITORY / "tests" / "cluster").glob("*.py"))
    assert told == set(re.findall(r'ENVIRONMENT(?:\.get\(|\[)"(\w+)"', code))
