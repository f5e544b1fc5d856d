"""The wheel holds the whole package, and Airflow finds in it what it should: the plugin, the provider, the operator.

It is built and installed without the network: into a new environment, to which the libraries of the one that the tests
run in are linked, but not the checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

import clip_operator
from demo.airflow_home import REPOSITORY, AirflowHome
from tests.conftest import SHAPES

pytestmark = pytest.mark.slow

PACKAGE = REPOSITORY / "plugins" / "clip_operator"

BESIDE = {"open-clip"}  # the extra whose libraries stand beside the environment, as the Makefile has it

# Prints what went wrong with plugins: by a function, or in Airflow 3.1 in a variable.
PLUGIN_ERRORS = """
from airflow import plugins_manager as manager
manager.ensure_plugins_loaded()
print(manager.get_import_errors() if hasattr(manager, "get_import_errors") else manager.import_errors)
"""

DAG = """
from airflow.sdk import dag
from clip_operator.operators import ImageCLIPEvaluatorOperator

@dag(schedule=None)
def scored_from_a_wheel():
    ImageCLIPEvaluatorOperator(
        task_id="score", first_entry_file_name={captions!r}, cache_path={steps!r}, file_name_prefix="captions",
        model_name={model!r}, aws_conn_id=None,
    )

scored_from_a_wheel()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that the wheel is installed in, with all its extras that are here."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        if "airflow_clip_operator" not in library.name:
            (site_packages / library.name).symlink_to(library)
    # Installs the wheel only, since there is no index: what an extra asks for is there, or this fails.
    extras = [extra for extra in metadata(wheel).get_all("Provides-Extra", []) if extra not in BESIDE]
    pip("--python", python, "install", "--no-index", f"{wheel}[{','.join(extras)}]")
    return python


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> AirflowHome:
    """An Airflow whose plugins folder is empty, as it is where the package comes from a wheel."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "plugins").mkdir()
    (folder / "dags").mkdir()
    home = AirflowHome(folder, {"AIRFLOW__CORE__PLUGINS_FOLDER": str(folder / "plugins")}, folder / "dags")
    home.migrate()
    return home


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=clean(os.environ))
    assert done.returncode == 0, done.stderr


def clean(environment: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    """Leave out what would show an interpreter the checkout."""
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"}


def run(python: Path, environment: dict[str, str], *arguments: str) -> str:
    """Run the new environment's Python, outside the checkout."""
    command = [str(python), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=clean(environment), cwd=python.parent)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    ours = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in ours if "__pycache__" not in name}
    assert {"clip_operator/py.typed", "clip_operator/model/builtin/shapes-clip/model.safetensors"} <= packed
    assert {Path(name).parts[1] for name in packed if name.endswith(".jinja")} == {"report", "web"}


def test_the_wheel_has_the_version_of_the_package(wheel: Path) -> None:
    said = metadata(wheel)
    assert (said["Name"], said["Version"]) == ("airflow-clip-operator", clip_operator.__version__)


def test_the_wheel_brings_the_command(python: Path) -> None:
    done = subprocess.run([python.with_name("clip-operator"), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"clip-operator {clip_operator.__version__}\n"


@pytest.mark.every_airflow
def test_airflow_lists_the_plugin_and_the_provider_of_an_installed_wheel(python: Path, airflow: AirflowHome) -> None:
    where = run(python, airflow.environment, "-c", "import clip_operator; print(clip_operator.__file__)").strip()
    assert Path(where).is_relative_to(python.parent.parent)
    (plugin,) = plugins(python, airflow.environment)
    assert plugin["source"].startswith(f"airflow-clip-operator=={clip_operator.__version__}")
    assert {view["destination"] for view in plugin["external_views"]} == {"task_instance", "dag"}
    providers = json.loads(run(python, airflow.environment, "-m", "airflow", "providers", "list", "--output", "json"))
    (provider,) = [each for each in providers if each["package_name"] == "airflow-clip-operator"]
    assert provider["version"] == clip_operator.__version__


@pytest.mark.every_airflow
def test_a_plugins_folder_beside_an_installed_wheel_gives_no_second_plugin(python: Path, airflow: AirflowHome) -> None:
    both = {**airflow.environment, "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins")}
    assert len(plugins(python, both)) == 1
    assert run(python, both, "-c", PLUGIN_ERRORS).splitlines()[-1] == "{}"


def plugins(python: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    listed = json.loads(run(python, environment, "-m", "airflow", "plugins", "--output", "json"))
    return [each for each in listed if each["name"] == "clip_scores"]


def test_a_dag_that_uses_an_installed_wheel_scores_and_writes_its_report(
    python: Path, airflow: AirflowHome, shapes_dataset: Path, tmp_path: Path
) -> None:
    text = DAG.format(captions=str(shapes_dataset / "captions.jsonl"), steps=str(tmp_path), model=SHAPES)
    (airflow.dags / "scored_from_a_wheel.py").write_text(text)
    run(python, airflow.environment, "-m", "airflow", "dags", "test", "scored_from_a_wheel")
    assert airflow.xcoms("scored_from_a_wheel")["score", "return_value"] == ["clip_score"]
    step = tmp_path / "captions_step1.jsonl"
    rows = [json.loads(line) for line in step.read_text().splitlines()]
    assert sum(row["clip_score"] is not None for row in rows) == 60
    assert "<svg" in Path(f"{step}.report.html").read_text()
