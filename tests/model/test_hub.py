"""A model named by its hub id: what is fetched, and what is said when it cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import command_line
from tests.hub import COMMIT, Hub, stand_in_hub


@pytest.fixture
def hub(checkpoint_folder: Path) -> Iterator[Hub]:
    with stand_in_hub(checkpoint_folder) as hub:
        yield hub


@pytest.fixture
def score(hub: Hub, shapes_dataset: Path, tmp_path: Path) -> Any:
    """Score the demo data set with a model from the hub; return the exit code, the manifest and the log."""

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        }
        uris = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", f"{tmp_path}/out.jsonl"]
        code, out, log = command_line.run("evaluate", *uris, *arguments, **environment)
        return code, json.loads(out or "{}"), log

    return run


def test_only_what_is_needed_is_fetched_and_the_commit_is_recorded(hub: Hub, score: Any) -> None:
    needed = set(hub.files)
    foreign = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.safetensors", "onnx/config.json"]
    hub.files |= dict.fromkeys(foreign, b"not this one")
    code, manifest, log = score("--model", "acme/clip", "--revision", "v2")
    assert code == 0, log
    assert hub.fetched == needed
    assert manifest["model"]["source"] == "hub"
    assert manifest["model"]["revision"] == COMMIT
    assert manifest["rows"]["scored"] == 60


def test_pickled_weights_are_fetched_where_there_are_no_safetensors(
    hub: Hub, score: Any, checkpoint_folder: Path, tmp_path: Path
) -> None:
    torch.save(load_file(checkpoint_folder / "model.safetensors"), tmp_path / "weights.bin")
    del hub.files["model.safetensors"]
    hub.files["pytorch_model.bin"] = (tmp_path / "weights.bin").read_bytes()
    code, manifest, log = score("--model", "acme/clip")
    assert code == 0, log
    assert "WARNING: Model acme/clip has no safetensors weights" in log
    assert manifest["rows"]["scored"] == 60


def test_a_model_that_was_fetched_once_needs_the_hub_no_more(hub: Hub, score: Any, tmp_path: Path) -> None:
    assert score("--model", "acme/clip")[0] == 0
    hub.files.clear()
    (tmp_path / "out.jsonl").unlink()
    hub.url = "http://127.0.0.1:9"  # where nobody listens
    code, manifest, log = score("--model", "acme/clip")
    assert code == 0, log
    assert manifest["model"]["revision"] == COMMIT
    shutil.rmtree(tmp_path / "hf")
    code, _, log = score("--model", "acme/clip", "--overwrite")
    assert code == 1
    assert "the hub cannot be reached, and the model is not in the local cache" in log


@pytest.mark.parametrize(
    ("arguments", "gated", "words"),
    [
        (["--model", "acme/none"], False, "there is no such model, or it is private and HF_TOKEN is not set"),
        (["--model", "acme/clip", "--revision", "v9"], False, "the model has no revision 'v9'"),
        (["--model", "acme/clip"], True, "the model is gated: accept its terms at the hub and set HF_TOKEN"),
    ],
)
def test_what_the_hub_refuses_is_said_in_words(
    hub: Hub, score: Any, arguments: list[str], gated: bool, words: str
) -> None:
    hub.gated = gated
    code, _, log = score(*arguments)
    assert code == 1
    assert words in log
    assert "Traceback" not in log
