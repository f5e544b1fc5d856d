"""The scorer's image: the same scores as outside it, and as little in it and as few rights as it needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import parse_manifest
from clip_operator.request import EvaluationRequest
from tests.conftest import S3, SHAPES, missing_part
from tests.docker import containers
from tests.docker.images import REPOSITORY, build
from tests.hub import stand_in_hub

pytestmark = pytest.mark.image


def test_the_demo_data_set_is_scored_as_outside_the_image(image: str, shapes_dataset: Path, s3: S3) -> None:
    folder = s3.put_folder(shapes_dataset, "shapes")
    request = EvaluationRequest(
        input=f"{folder}/captions.jsonl", output=f"{folder}/inside.jsonl", model=SHAPES, device="cpu"
    )
    outside = request.model_copy(update={"output": f"{folder}/outside.jsonl"})
    evaluate(outside, s3.storage)
    done = containers.run(
        image,
        "evaluate",
        "--request=-",
        environment=s3.store.environment,
        stdin=request.model_dump_json(),
    )
    assert done.returncode == 0, done.stderr
    manifest = parse_manifest(s3.get(f"{request.output}.manifest.json"))
    assert manifest is not None
    assert manifest == parse_manifest(done.stdout.encode())
    assert (manifest.rows.total, manifest.rows.scored) == (64, 60)
    written, expected = s3.get(request.output), s3.get(outside.output)
    if manifest.libraries["torch"] == version("torch"):
        assert written == expected
    else:  # another build of torch may add up in another order
        rows, wanted = ([json.loads(line) for line in text.splitlines()] for text in (written, expected))
        scores, right = ([row.pop("clip_score") for row in each] for each in (rows, wanted))
        assert rows == wanted
        assert scores == [None if score is None else pytest.approx(score, abs=1e-6) for score in right]


def test_the_user_is_a_number_and_not_root(image: str) -> None:
    configured = containers.podman("image", "inspect", "--format={{.Config.User}}", image).stdout.strip()
    assert re.fullmatch(r"[1-9][0-9]*(:[0-9]+)?", configured), configured
    assert containers.python(image, "import os; print(os.getuid())").strip() == configured.partition(":")[0]


def test_nothing_but_its_two_folders_is_writable(image: str) -> None:
    code = """
import json, os
bare = ("/proc", "/sys", "/dev")
folders = [folder for folder, _, _ in os.walk("/") if not folder.startswith(bare)]
print(json.dumps([folder for folder in folders if os.access(folder, os.W_OK)]))
"""
    # on a root file system that can be written to: what counts is the user's own rights
    done = containers.run(image, "-c", code, options=["--entrypoint=python", "--read-only=false"])
    assert done.returncode == 0, done.stderr
    writable = set(json.loads(done.stdout))
    assert {"/tmp", "/cache"} <= writable
    assert writable <= {"/tmp", "/cache", "/var/tmp", "/run/lock"}  # the last two are so in every Debian


def test_python_on_the_path_is_the_one_with_the_package(image: str) -> None:
    done = containers.run(image, "python", "-m", "clip_operator", "--help", options=["--entrypoint=env"])
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_airflow_is_not_in_it(image: str) -> None:
    code = "from importlib.util import find_spec; print(find_spec('torch') is None, find_spec('airflow') is None)"
    assert containers.python(image, code).split() == ["False", "True"]


def test_no_weights_are_in_it_but_those_that_the_package_ships(image: str) -> None:
    code = r"""
import json, os, re
weights = re.compile(r".*\.(safetensors|ckpt|gguf|h5|msgpack|onnx)|pytorch_model.*\.bin")
paths = [os.path.join(folder, name) for folder, _, names in os.walk("/") for name in names if weights.fullmatch(name)]
print(json.dumps([path for path in paths if not path.startswith(("/proc", "/sys"))]))
"""
    (found,) = json.loads(containers.python(image, code))
    assert found.endswith("/site-packages/clip_operator/model/builtin/shapes-clip/model.safetensors")


def test_the_libraries_are_those_of_the_constraints(image: str) -> None:
    def name_of(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    code = """
import json
from importlib.metadata import distributions
print(json.dumps({d.name: d.version for d in distributions()}))
"""
    inside = {name_of(name): number for name, number in json.loads(containers.python(image, code)).items()}
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {name_of(name): number for name, _, number in (line.partition("==") for line in lines)}
    assert {"torch", "transformers", "boto3", "pyarrow", "airflow-clip-operator"} <= set(inside)
    differing = {
        name: number for name, number in inside.items() if number.partition("+")[0] != pinned.get(name, number)
    }
    assert differing == {}


def test_a_wrong_request_ends_with_2(image: str) -> None:
    done = containers.run(image, "evaluate", "--request=-", stdin='{"input": "a.jsonl"}')
    assert (done.returncode, done.stdout) == (2, "")
    assert "output: must be given" in done.stderr


def test_a_failed_job_ends_with_1_and_a_reason(image: str, s3: S3) -> None:
    uris = ["--input", f"s3://{s3.bucket}/none.jsonl", "--output", f"s3://{s3.bucket}/out.jsonl"]
    done = containers.run(image, "evaluate", *uris, environment=s3.store.environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"ERROR: s3://{s3.bucket}/none.jsonl does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_container_that_is_stopped_ends_with_1_at_once_and_writes_nothing(
    image: str, shapes_dataset: Path, s3: S3, tmp_path: Path
) -> None:
    folder = s3.put_folder(shapes_dataset, "shapes")
    captions = s3.put("shapes/many.jsonl", (shapes_dataset / "captions.jsonl").read_bytes() * 500)
    before = s3.object_keys()
    uris = ["--input", captions, "--output", f"{folder}/out.jsonl", "--model", SHAPES]
    number = tmp_path / "number"
    options = [f"--cidfile={number}"]
    process = containers.start(image, "evaluate", *uris, environment=s3.store.environment, options=options)
    assert process.stderr is not None
    for line in process.stderr:
        if "Row 14 has no score" in line:
            break
    began = time.monotonic()
    containers.podman("stop", "--time=60", number.read_text())
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (1, "")  # 137, had the signal not reached the job
    assert time.monotonic() - began < 30
    assert "stopped before all rows were scored" in stderr
    assert s3.object_keys() == before


@pytest.fixture
def image_with_model(image: str) -> Iterator[str]:
    """An image with the model acme/clip in it, gone after the test."""
    if "CLIP_IMAGE" in os.environ:
        missing_part("an image to build (CLIP_IMAGE names one that is built already)")
    name = "clip-operator:test-model"
    with stand_in_hub(REPOSITORY / "plugins/clip_operator/model/builtin/shapes-clip") as hub:
        arguments = {"MODEL": "acme/clip", "MODEL_REVISION": "v2", "HF_ENDPOINT": hub.url}
        build(name, *(f"--build-arg={argument}={value}" for argument, value in arguments.items()))
    yield name
    containers.podman("rmi", name)


def test_a_model_that_was_asked_for_is_in_it_and_needs_no_network(
    image_with_model: str, shapes_dataset: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(shapes_dataset, tmp_path / "data")
    data.chmod(0o755)  # pytest's folders are for its own user only
    arguments = ["--input=/data/captions.jsonl", "--output=/tmp/out.jsonl", "--model=/models/acme/clip"]
    options = [f"--volume={data}:/data:ro"]
    done = containers.run(image_with_model, "evaluate", *arguments, network="none", options=options)
    assert done.returncode == 0, done.stderr
    manifest = parse_manifest(done.stdout.encode())
    assert manifest is not None
    assert manifest.model.source == "folder"
    assert manifest.rows.scored == 60
