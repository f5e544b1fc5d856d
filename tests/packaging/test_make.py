"""make takes whichever Python there is that can be used, says which, and says what to do where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo.airflow_home import REPOSITORY

# Answers what it is asked as a Python of another version would, and makes an environment whose Python does nothing.
STAND_IN = """#!/bin/sh
case "$1" in
    --version) echo "Python {version}";;
    -c) exec {python} -c 'import sys; {lacks}; sys.version_info = {numbers}; exec(sys.argv[1])' "$2";;
    -m) mkdir -p "$3/bin" && printf '#!/bin/sh\\n' > "$3/bin/python" && chmod +x "$3/bin/python";;
esac
"""
# What pyenv puts into the PATH for versions that are installed and not chosen.
SHIM = '#!/bin/sh\necho "pyenv: $0: command not found" >&2\nexit 127\n'
WITHOUT_VENV = "sys.modules['ensurepip'] = None"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing is made yet, and a folder ``bin`` for all that its PATH has."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("touch", "mkdir", "chmod"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    return tmp_path


def put(checkout: Path, name: str, version: str, lacks: str = "pass") -> None:
    numbers = tuple(map(int, version.split(".")))
    program(checkout, name, STAND_IN.format(python=sys.executable, version=version, numbers=numbers, lacks=lacks))


def program(checkout: Path, name: str, text: str) -> None:
    path = checkout / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(shutil.which("make")), ".venv/installed", *arguments]
    environment = {"PATH": str(checkout / "bin")}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_the_version_that_is_tested_most_comes_first(checkout: Path) -> None:
    for version in ("3.13.1", "3.12.4", "3.11.5"):
        put(checkout, f"python{version.rpartition('.')[0]}", version)
    done = make(checkout)
    assert done.returncode == 0, done.stderr
    assert f"Making .venv with {checkout}/bin/python3.11, Python 3.11.5\n" in done.stdout
    assert (checkout / ".venv/installed").exists()


@pytest.mark.parametrize("name", ["python3.12", "python3.13", "python3", "python"])
def test_what_only_has_the_name_is_passed_over(checkout: Path, name: str) -> None:
    program(checkout, "python3.11", SHIM)
    put(checkout, "python3.12", "3.12.4", lacks=WITHOUT_VENV)
    put(checkout, "python3", "3.11.4")  # for which the versions in constraints.txt are not all there
    put(checkout, name, f"{name.removeprefix('python') if '.' in name else '3.13'}.4")
    done = make(checkout)
    assert done.returncode == 0, done.stderr
    assert f"Making .venv with {checkout}/bin/{name}, Python 3.1" in done.stdout


def test_where_there_is_none_make_says_what_to_do(checkout: Path) -> None:
    program(checkout, "python3.11", SHIM)
    put(checkout, "python3", "3.14.0")
    done = make(checkout)
    assert done.returncode != 0
    assert (
        "with python3.11, python3.12, python3.13, python3 or python: it takes a Python from 3.11.5\nto 3.13"
        in done.stderr
    )
    assert "make PYTHON=/path/to/python3.12" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("version", ["3.11.4", "3.14.0"])
def test_one_that_is_named_and_cannot_be_used_is_not_taken_either(checkout: Path, version: str) -> None:
    put(checkout, "python3.12", "3.12.4")
    put(checkout, "mine", version)
    done = make(checkout, "PYTHON=mine")
    assert done.returncode != 0
    assert "No environment can be made with mine: it takes a Python from 3.11.5\nto 3.13" in done.stderr
    assert not (checkout / ".venv").exists()


def test_one_that_is_named_is_taken(checkout: Path) -> None:
    put(checkout, "python3.11", "3.11.9")
    put(checkout, "mine", "3.13.2")
    assert f"Making .venv with {checkout}/bin/mine, Python 3.13.2\n" in make(checkout, "PYTHON=mine").stdout
