"""Every command in the documentation is run as a reader would, or checked as far as can be; an unknown one fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import boto3
import pytest
import yaml
from airflow.cli.cli_parser import get_parser

from benchmarks.__main__ import BENCHMARKS
from clip_operator import cli
from clip_operator.reuse import ScoreStore
from clip_operator.storage import Storage
from clip_operator.storage.s3.access import S3Access
from demo.airflow_home import REPOSITORY
from demo.object_store import ObjectStore
from tests.conftest import SHAPES
from tests.docs.pages import Command, blocks, commands, inline_code, pages

BUCKET = "my-bucket"
MODEL = "openai/clip-vit-base-patch32"

# The images that the documentation runs, and what runs in them.
SCORER_IMAGE = "clip-operator"

# The project itself, or the wheel that is built of it, with extras.
_PROJECT = re.compile(r"(?:\.|dist/airflow_clip_operator-(?P<version>[^-]+)-py3-none-any\.whl)(?:\[(?P<extras>.+)\])?")

# From PyTorch's own index, which the image takes it from, too.
_CPU_TORCH = ("torch", "--index-url", "https://download.pytorch.org/whl/cpu")

# Folders on the reader's disk, and where they are in the folder of these tests.
ON_DISK = {"/data/steps/": "data/"}

# Programs of others, which are not here; what they are given are names of the reader's own.
NOT_HERE = {
    "aws": "the AWS command line, for a bucket of the reader's",
    "hf": "the Hugging Face hub's command line, which needs the hub",
}


@pytest.fixture(scope="module")
def readers_folder(
    store: ObjectStore, shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder with data of the reader's own, a bucket with the same, and a stand-in for the default model."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(shapes_dataset, folder, dirs_exist_ok=True)
    shutil.copytree(shapes_dataset, folder / "data")
    (folder / "dags").symlink_to(REPOSITORY / "dags")
    (folder / MODEL).parent.mkdir()
    (folder / MODEL).symlink_to(REPOSITORY / "plugins/clip_operator/model/builtin" / SHAPES.partition("://")[2])
    store.make_bucket(BUCKET)
    client = store.client()
    session = boto3.session.Session(store.access_key, store.secret_key, region_name="us-east-1")
    ScoreStore(Storage(S3Access(session, store.endpoint_url)), f"s3://{BUCKET}/clip-cache")
    for path in (path for path in shapes_dataset.rglob("*") if path.is_file()):
        client.put_object(Bucket=BUCKET, Key=path.relative_to(shapes_dataset).as_posix(), Body=path.read_bytes())
    yield folder
    for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]:
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def as_the_reader(readers_folder: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in the reader's folder, with the credentials of the reader's store."""
    monkeypatch.chdir(readers_folder)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run_clip_operator(command: Command, words: Sequence[str]) -> None:
    """It is run, in this process, which has loaded torch already."""
    assert cli.main([ON_DISK.get(word, word) for word in words]) == cli.DONE


def run_dataset(command: Command, words: Sequence[str]) -> None:
    """The demo's data set is drawn."""
    subprocess.run([sys.executable, "-m", "demo.dataset", *words], check=True, env=with_repository())


def run_upload(command: Command, words: Sequence[str]) -> None:
    """It is run, and prints what the page says."""
    upload = [sys.executable, "-m", "demo.upload", *words]
    done = subprocess.run(upload, check=True, env=with_repository(), capture_output=True, text=True)
    assert done.stdout == command.output


def run_in_shell(command: Command, words: Sequence[str]) -> None:
    """It is run, and prints what the page says."""
    done = subprocess.run(command.words, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    assert done.stdout == command.output


def check_benchmarks(command: Command, words: Sequence[str]) -> None:
    """They take half an hour: their names and flags are those that there are."""
    names = [word for word in words if not word.startswith("-") and "/" not in word]
    assert set(names) <= set(BENCHMARKS)
    shows_help = [sys.executable, "-m", "benchmarks", "--help"]
    told = subprocess.run(shows_help, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    assert all(word in told for word in words if word.startswith("-"))


def check_make(command: Command, words: Sequence[str]) -> None:
    """They set the whole checkout up: the targets and variables are the Makefile's."""
    makefile = (REPOSITORY / "Makefile").read_text()
    for word in words:
        name, sets, _ = word.partition("=")
        assert re.search(rf"^{name} [?:]=" if sets else rf"^{name}:.*##", makefile, re.MULTILINE), name


def check_activation(command: Command, words: Sequence[str]) -> None:
    """It is the environment that make makes."""
    assert words == [".venv/bin/activate"]
    assert "VENV := .venv$(AIRFLOW:%=-%)\n" in (REPOSITORY / "Makefile").read_text()


def check_export(command: Command, words: Sequence[str]) -> None:
    """The values are the reader's: the names are of those variables that these tests set themselves."""
    assert {word.partition("=")[0] for word in words} <= os.environ.keys()


def check_pip(command: Command, words: Sequence[str]) -> None:
    """It would change this environment: extras and files are those that there are. tests/packaging installs a wheel."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    if "torch" in words:  # before the project, as the image has it
        (index,) = after("--index-url", words)
        assert f"\nARG TORCH_INDEX={index}\n" in (REPOSITORY / "docker/Dockerfile").read_text()
        assert [word for word in words if word != index] == ["install", "torch", "--index-url"]
        return
    for word in words:
        match = _PROJECT.fullmatch(word)
        if match is None:
            assert word in {"install", "wheel", "--no-deps", "--wheel-dir", "dist", *_CPU_TORCH}, word
            continue
        assert match["version"] in (None, version())
        assert set((match["extras"] or "airflow").split(",")) <= set(project["optional-dependencies"])


def check_airflow(command: Command, words: Sequence[str]) -> None:
    """They need an Airflow of the reader's: Airflow's own parser takes them, and DAGs are ones that are shown."""
    options = get_parser().parse_args(words)
    if "dag_id" in options:
        assert options.dag_id in {path.stem for path in REPOSITORY.glob("dags/*.py")} | dags_on_pages()


def check_docker_build(command: Command, words: Sequence[str]) -> None:
    """Image tests build it: the file is there, and takes these arguments."""
    dockerfile = (REPOSITORY / after("--file", words)[0]).read_text()
    for argument in after("--build-arg", words):
        assert re.search(rf"^ARG {argument.partition('=')[0]}\b", dockerfile, re.MULTILINE), argument
    assert words[-1] == "."


def run_docker_run(command: Command, words: Sequence[str]) -> None:
    """What is given to the image's entry point is run."""
    run_clip_operator(command, words[words.index(SCORER_IMAGE) + 1 :])


def check_elsewhere(command: Command, words: Sequence[str]) -> None:
    """A program of others; see NOT_HERE."""


KINDS: dict[str, Callable[[Command, Sequence[str]], None]] = {
    "clip-operator": run_clip_operator,
    "python -m clip_operator": run_clip_operator,
    "python -m demo.dataset": run_dataset,
    "python -m demo.upload": run_upload,
    "python -m benchmarks": check_benchmarks,
    "head": run_in_shell,
    "ls": run_in_shell,
    "make": check_make,
    "source": check_activation,
    "export": check_export,
    "pip": check_pip,
    "airflow": check_airflow,
    "docker build": check_docker_build,
    "docker run": run_docker_run,
    **dict.fromkeys(NOT_HERE, check_elsewhere),
}


def after(flag: str, words: Sequence[str]) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words[:-1]) if word == flag]


def with_repository() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def version() -> str:
    import clip_operator

    return clip_operator.__version__


def dags_on_pages() -> set[str]:
    return {name for block in blocks("python") for name in re.findall(r"@dag\(.*?\)\ndef (\w+)", block.text)}


def check(command: Command) -> None:
    """Run or check a command as its kind is."""
    for beginning, way in KINDS.items():
        if command.words[: len(beginning.split())] == beginning.split():
            return way(command, command.words[len(beginning.split()) :])
    raise AssertionError(f"{command.where}: no test knows how to check {command.text!r}")


@pytest.mark.usefixtures("as_the_reader")
@pytest.mark.parametrize("command", commands(), ids=lambda command: f"{command.where} {command.words[0]}")
def test_a_command_does_what_the_page_says(command: Command) -> None:
    check(command)


def test_workflows_to_copy_run_commands_that_there_are() -> None:
    workflows = [yaml.safe_load(block.text) for block in blocks("yaml") if "jobs:" in block.text]
    steps = [step for workflow in workflows for job in workflow["jobs"].values() for step in job["steps"]]
    known = {command.text for command in commands()}
    for words in [Command("a workflow", step["run"], "").words for step in steps if "run" in step]:
        if words[0] == "airflow":
            check_airflow(Command("a workflow", "", ""), words[1:])
        elif words[0] == "clip-operator":
            assert any(Command("", text, "").words == words for text in known), words
        else:
            assert words[:2] == ["pip", "install"]


def test_an_unknown_command_is_no_command_of_the_documentation() -> None:
    with pytest.raises(AssertionError, match="no test knows how to check"):
        check(Command("a page", "kubectl delete --all pods", ""))


def test_commands_in_the_prose_exist_too() -> None:
    for page in pages():
        for code in inline_code(page):
            words = code.split()
            if words[0] == "make" and len(words) > 1 and "…" not in code:
                check_make(Command(page, code, ""), words[1:])
            if code.startswith("pip install '."):
                check_pip(Command(page, code, ""), Command(page, code, "").words[1:])
