"""Data sets of the hub, from a stand-in on loopback: they consist of what their own repository has at its commit."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError
from clip_operator.inputs import find_input
from clip_operator.storage import Storage
from tests.hub import COMMIT, Hub, stand_in_hub
from tests.images.pictures import png

datasets: Any = importlib.import_module("datasets")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub whose data set ``acme/pairs`` has one file of captions."""
    (tmp_path / "repository" / "data").mkdir(parents=True)
    (tmp_path / "repository" / "data" / "train.csv").write_text("image_path,text\na.png,own\n")
    with stand_in_hub(tmp_path / "repository", is_dataset=True) as hub:
        for place in ("huggingface_hub.constants.ENDPOINT", "datasets.config.HF_ENDPOINT"):
            monkeypatch.setattr(place, hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        for place in ("huggingface_hub.constants.HF_HUB_OFFLINE", "datasets.config.HF_HUB_OFFLINE"):
            monkeypatch.setattr(place, False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
        huggingface_hub.HfFileSystem.clear_instance_cache()
        yield hub
        huggingface_hub.HfFileSystem.clear_instance_cache()


def rows(folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    path = find_input(Storage(), "hf:acme/pairs").fetch(folder).path
    return list(pq.read_table(path).to_pylist())


def readme(pattern: str) -> bytes:
    return f"---\n{json.dumps({'configs': [{'config_name': 'default', 'data_files': pattern}]})}\n---\n".encode()


@pytest.mark.parametrize(
    "pattern",
    [
        None,
        "data/*.csv",
        f"hf://datasets/acme/pairs@{COMMIT}/data/train.csv",
        f"{{url}}/datasets/acme/pairs/resolve/{COMMIT}/data/train.csv",
    ],
)
def test_the_files_of_its_repository_at_its_commit_are_read(hub: Hub, tmp_path: Path, pattern: str | None) -> None:
    if pattern is not None:
        hub.files["README.md"] = readme(pattern.format(url=hub.url))
    assert rows(tmp_path / "work") == [{"image_path": "a.png", "text": "own"}]


@pytest.mark.parametrize(
    "pattern",
    [
        "{top}/secret.csv",
        "file://{top}/secret.csv",
        "data:secret.csv",
        "../../../../../{top}/secret.csv",
        "{url}/secret.csv",
        "zip://secret.csv::{url}/secret.zip",
        "data/train.csv::{url}/secret.zip",
        "hf://datasets/acme/other@main/data/train.csv",
        "hf://datasets/acme/pairs@main/data/train.csv",
        "{url}/datasets/acme/pairs/resolve/main/data/train.csv",
        "{url}/datasets/acme/pairs/resolve/{commit}/../../../other/resolve/main/data/train.csv",
        "hf://datasets/acme/pairs@{commit}/../../other@main/data/train.csv",
        "hf://buckets/acme/pairs/secret.csv",
    ],
)
def test_nothing_else_is_asked_for_not_even_where_the_data_set_was_read_before(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    rows(tmp_path / "before")
    (tmp_path / "secret.csv").write_text("image_path,text\na.png,SECRET\n")
    hub.files["README.md"] = readme(pattern.format(top=tmp_path, url=hub.url, commit=COMMIT))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "another cache"))
    huggingface_hub.HfFileSystem.clear_instance_cache()
    hub.fetched.clear()
    hub.unknown.clear()
    with pytest.raises(JobError, match="not a file of its own; only what lies in acme/pairs is read"):
        rows(tmp_path / "work")
    assert hub.fetched == {"README.md"}
    assert not [path for path in hub.unknown if "secret" in path or "other" in path]


def test_images_are_its_own_and_not_what_others_have_in_the_same_caches(hub: Hub, tmp_path: Path) -> None:
    caches = [tmp_path / "datasets" / "downloads", tmp_path / "hub" / "datasets--acme--other" / "blobs"]
    paths = []
    for cache in caches:
        cache.mkdir(parents=True)
        (cache / "x.png").write_bytes(png())
        paths.append(str(cache / "x.png"))
    schema = datasets.Features({"image": datasets.Image()}).arrow_schema
    column = pa.array([{"bytes": None, "path": path} for path in paths], schema.field("image").type)
    pq.write_table(pa.table([column], schema=schema), tmp_path / "train.parquet")
    hub.files.clear()
    hub.files["train.parquet"] = (tmp_path / "train.parquet").read_bytes()
    assert rows(tmp_path / "work") == [{"image": {"bytes": None, "path": path}} for path in paths]


def test_a_folder_of_images_comes_with_its_images(hub: Hub, tmp_path: Path) -> None:
    hub.files.clear()
    hub.files["a.png"] = png()
    hub.files["metadata.jsonl"] = b'{"file_name": "a.png", "text": "own"}\n'
    assert rows(tmp_path / "work") == [{"image": {"bytes": png(), "path": "a.png"}, "text": "own"}]
