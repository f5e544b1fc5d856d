"""A checkpoint in open_clip's format is refused by name where open_clip is not installed, and before it is copied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_operator.errors import JobError
from clip_operator.model import choose_device, find_checkpoint, load_encoder
from tests import command_line
from tests.conftest import S3, SHAPES
from tests.hub import stand_in_hub
from tests.model.conftest import Find

ADVICE = (
    "is saved in open_clip's format, and open_clip is not installed where the scoring runs: install the extra "
    "open-clip there, or give a checkpoint in transformers' format"
)


@pytest.fixture(autouse=True)
def _without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "open-clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}, "preprocess_cfg": {}}))
    (folder / "open_clip_model.safetensors").write_bytes(bytes(1000))
    return folder


def refusal(find: Find, folder: Path | str) -> str:
    with pytest.raises(JobError) as caught:
        find(folder)
    return str(caught.value)


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"])
def test_a_folder_is_refused_with_advice(find: Find, folder: Path, weights: str) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / weights)
    assert refusal(find, folder) == f"model '{folder}' {ADVICE}"


def test_a_prefix_is_refused_and_nothing_of_it_copied(
    s3: S3, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIP_OPERATOR_CACHE", str(tmp_path / "cache"))
    uri = s3.put_folder(folder, "open-clip")
    with pytest.raises(JobError) as caught:
        find_checkpoint(uri, None, s3.storage)
    assert ADVICE in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_model_of_the_hub_is_refused_and_its_weights_not_fetched(
    folder: Path, shapes_dataset: Path, tmp_path: Path
) -> None:
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    with stand_in_hub(folder) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        uris = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", f"{tmp_path}/out.jsonl"]
        code, _, log = command_line.run("evaluate", *uris, "--model", "acme/clip", **environment)
        assert hub.fetched == {"open_clip_config.json"}
    assert code == 1
    assert f"model 'acme/clip' {ADVICE}" in log


def test_pickled_weights_of_open_clip_are_not_loaded(find: Find, folder: Path) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    message = refusal(find, folder)
    assert "holds no weights (open_clip_model.safetensors or open_clip_pytorch_model.safetensors; pickled" in message
    assert "save the model as safetensors); it has open_clip_config.json, open_clip_pytorch_model.bin" in message


def test_a_checkpoint_in_both_formats_needs_no_open_clip(find: Find, folder: Path, checkpoint_folder: Path) -> None:
    for path in folder.iterdir():
        (checkpoint_folder / path.name).write_bytes(path.read_bytes())
    checkpoint = find(checkpoint_folder)
    assert checkpoint.weights == ("model.safetensors",)
    assert load_encoder(checkpoint, choose_device("cpu"), "fp32").provenance.architecture == "CLIPModel"


def test_a_torchvision_that_was_built_for_another_torch_is_said_in_words(shapes_dataset: Path, tmp_path: Path) -> None:
    """Transformers imports it, if it is there."""
    beside = tmp_path / "beside"
    (beside / "torchvision").mkdir(parents=True)
    (beside / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    (beside / "torchvision-1.0.dist-info").mkdir()
    (beside / "torchvision-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 1.0\n"
    )
    uris = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", f"{tmp_path}/out.jsonl"]
    path = os.pathsep.join([str(beside), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "clip_operator", "evaluate", *uris, "--model", SHAPES],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the libraries that run models cannot be imported: " in done.stderr
    assert "operator torchvision::nms does not exist; where torchvision is installed, it has to be" in done.stderr
    assert "Traceback" not in done.stderr
