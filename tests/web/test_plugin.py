"""The plugin costs those nothing who load plugins but serve no pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from clip_operator.plugin import ClipScoresPlugin
ClipScoresPlugin.validate()
assert ClipScoresPlugin.external_views
assert not {"fastapi", "torch", "pandas", "clip_operator.web"} & set(sys.modules)
[pages] = ClipScoresPlugin.fastapi_apps
assert pages["url_prefix"] == "/clip-scores"
assert "fastapi" in sys.modules
"""


@pytest.mark.every_airflow
def test_fastapi_is_loaded_when_the_pages_are_asked_for_and_not_before() -> None:
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True)
