"""Where relative images start: in the folder of the data set, wherever that is."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import _registry

from clip_operator import evaluate
from clip_operator.inputs import default_image_root
from clip_operator.inputs.image_access import image_root
from clip_operator.preflight import check_before_pod
from clip_operator.request import parse_request
from clip_operator.storage import Storage, dataset_name
from tests.conftest import SHAPES

_DRIVER = '''
from fsspec.implementations.local import LocalFileSystem

class HubFiles(LocalFileSystem):
    """A stand-in for the hub's own storage, which tests cannot reach: files in a folder."""

    protocol = "hf"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("hf://", {root!r}, 1))
'''


@pytest.fixture
def hub(shapes_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The demo data set in the hub's storage; the URI of its folder.

    Its driver is installed as a package is, so that the processes that fetch images find it, too.
    """
    packages, metadata = tmp_path / "packages", tmp_path / "packages" / "hub_files-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hub-files\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[fsspec.specs]\nhf = hub_files:HubFiles\n")
    (packages / "hub_files.py").write_text(_DRIVER.format(root=f"{tmp_path}/hub/"))
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setitem(_registry, "hf", get_driver(packages / "hub_files.py"))
    shutil.copytree(shapes_dataset, tmp_path / "hub/datasets/acme/pairs")
    yield "hf://datasets/acme/pairs"
    sys.modules.pop("hub_files", None)


def get_driver(path: Path) -> Any:
    specification = importlib.util.spec_from_file_location("hub_files", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.HubFiles


@pytest.mark.parametrize(
    ("source", "root"),
    [
        ("s3://b/raw/x.jsonl", "s3://b/raw"),
        ("s3://b/raw/", "s3://b/raw"),
        ("s3://b/raw/part-*.parquet", "s3://b/raw"),
        ("raw/x.jsonl", "raw"),
        ("hf:org/name:config:train", "org/name"),
        ("hf:/data/folder:train", "/data/folder"),
        ("hf://datasets/org/name/x.jsonl", "hf://datasets/org/name"),
    ],
)
def test_images_start_in_the_folder_of_the_input_unless_another_is_named(source: str, root: str) -> None:
    assert default_image_root(source) == root
    request = parse_request({"input": source, "output": "/tmp/out.parquet"})
    assert image_root(request) == root
    assert image_root(request.model_copy(update={"image_root": "s3://images"})) == "s3://images"


@pytest.mark.parametrize(
    ("uri", "name"),
    [("hf:org/name", "org/name"), ("hf:/data:train", "/data:train"), ("hf://datasets/org/x", None), ("x/hf:y", None)],
)
def test_a_data_set_of_the_hub_is_no_object_in_its_storage(uri: str, name: str | None) -> None:
    assert dataset_name(uri) == name


def test_the_images_of_an_input_in_the_hubs_storage_are_there_too(
    hub: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fields = {"input": f"{hub}/captions.jsonl", "input_text_key": "alt_text", "model": SHAPES}
    request = parse_request({**fields, "output": f"{tmp_path}/out.jsonl"})
    check_before_pod(request, Storage(), threading.Event())
    assert "an image that it names exists" in caplog.text
    assert evaluate(request).rows.failures == {"image_not_found": 1, "image_unreadable": 1}
