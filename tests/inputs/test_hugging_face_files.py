"""Data sets that name files which are not their own: nothing of those is opened, and no host is asked for one."""

from __future__ import annotations

import importlib
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError
from clip_operator.inputs import find_input
from clip_operator.storage import Storage
from tests.inputs.test_hugging_face import png

datasets: Any = importlib.import_module("datasets")

SECRET = "image_path,text\na.png,SECRET\n"
OWN = "image_path,text\na.png,own\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def web() -> Iterator[tuple[str, list[str]]]:
    """A web server with the secret, and what it has been asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(SECRET)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(SECRET.encode())

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder ``pairs`` between files that are not its own."""
    (tmp_path / "pairs" / "data").mkdir(parents=True)
    (tmp_path / "pairs-2").mkdir()
    for place in ("secret.csv", "pairs-2/secret.csv"):
        (tmp_path / place).write_text(SECRET)
    (tmp_path / "pairs" / "data" / "train.csv").write_text(OWN)
    with zipfile.ZipFile(tmp_path / "secret.zip", "w") as archive:
        archive.writestr("secret.csv", SECRET)
    return tmp_path


def texts(uri: str, folder: Path) -> list[str]:
    folder.mkdir()
    path = find_input(Storage(), uri).fetch(folder).path
    return list(map(str, pq.read_table(path)["text"].to_pylist()))


def say(folder: Path, **config: Any) -> None:
    """Write a README whose only configuration says this (JSON is YAML, too)."""
    about = {"configs": [{"config_name": "default", **config}]}
    (folder / "README.md").write_text(f"---\n{json.dumps(about)}\n---\n")


OUTSIDE = [
    "{top}/secret.csv",
    "../secret.csv",
    "data/../../secret.csv",
    "{top}/pairs/../secret.csv",
    "{top}/pairs*/secret.csv",
    "{top}/*.csv",
    "/{top}/secret.csv",
    "**/../../secret.csv",
    "*/../../*.csv",
    "data/[.][.]/../../secret.csv",
    "file://{top}/secret.csv",
    "FILE://{top}/secret.csv",
    "local://{top}/secret.csv",
    "local:{top}/secret.csv",
    "simplecache::{top}/secret.csv",
    "filecache::file://{top}/secret.csv",
    "zip://secret.csv::{top}/secret.zip",
    "zip://*.csv::file://{top}/secret.zip",
    "zip://secret.csv::{web}/secret.zip",
    "simplecache::{web}/secret.csv",
    "{web}/secret.csv",
    "{web}/*.csv?signature=hush",
    "hf://datasets/acme/other@main/secret.csv",
    "data/train.csv::{top}/secret.csv",
    "link.csv",
    "*.csv",
    "linked/secret.csv",
    "linked/*.csv",
]


@pytest.mark.parametrize("form", ["text", "list", "split"])
@pytest.mark.parametrize("pattern", OUTSIDE)
def test_no_pattern_of_a_folder_leads_to_files_of_others(
    top: Path, web: tuple[str, list[str]], pattern: str, form: str
) -> None:
    url, asked = web
    asked.clear()
    folder = top / "pairs"
    (folder / "link.csv").symlink_to(top / "secret.csv")
    (folder / "linked").symlink_to(top / "pairs-2")
    named = pattern.format(top=top, web=url)
    say(
        folder,
        data_files={"text": named, "list": ["data/train.csv", named], "split": [{"split": "a", "path": named}]}[form],
    )
    with pytest.raises(JobError, match=r"not a file of its own; only what lies in .*pairs is read") as error:
        texts(f"hf:{folder}", top / "work")
    assert not asked
    assert "hush" not in str(error.value)
    assert not list((top / "cache").rglob("*.arrow"))


def test_the_same_is_held_by_the_other_files_in_which_a_folder_describes_itself(top: Path) -> None:
    folder = top / "pairs"
    about = {"configs": [{"config_name": "default", "data_files": "../secret.csv"}]}
    (folder / ".huggingface.yaml").write_text(json.dumps(about))
    with pytest.raises(JobError, match="not a file of its own"):
        texts(f"hf:{folder}", top / "work")


@pytest.mark.parametrize("data_dir", ["..", "../pairs-2", "{top}/pairs-2", "{top}", "linked", "file://{top}"])
def test_no_directory_of_data_leads_out_of_the_folder(top: Path, data_dir: str) -> None:
    (top / "pairs" / "linked").symlink_to(top / "pairs-2")
    say(top / "pairs", data_dir=data_dir.format(top=top))
    with pytest.raises(JobError, match="not a file of its own"):
        texts(f"hf:{top / 'pairs'}", top / "work")


@pytest.mark.parametrize("name", ["train.csv", "data/train.csv"])
def test_a_link_that_leads_out_is_no_file_of_a_folder_without_a_readme(top: Path, name: str) -> None:
    place = top / "pairs" / name
    place.unlink(missing_ok=True)
    place.symlink_to(top / "secret.csv")
    with pytest.raises(JobError, match="not a file of its own"):
        texts(f"hf:{top / 'pairs'}", top / "work")


def test_a_configuration_that_is_not_read_may_not_name_files_of_others_where_it_is_listed(top: Path) -> None:
    """The package looks for the files of the first one, whichever is asked for."""
    folder = top / "pairs"
    about = [
        {"config_name": "first", "data_files": "../secret.csv"},
        {"config_name": "second", "data_files": "data/train.csv"},
    ]
    (folder / "README.md").write_text(f"---\n{json.dumps({'configs': about})}\n---\n")
    for name in ("", ":second:train", ":third:train"):
        with pytest.raises(JobError, match="not a file of its own"):
            texts(f"hf:{folder}{name}", top / f"work{name}")


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml", "dataset_infos.json"])
def test_no_description_of_a_folder_is_a_link_to_elsewhere(top: Path, name: str) -> None:
    """What is wrong with a description is quoted in an error."""
    (top / "secret").write_text("---\nconfigs: [TOP SECRET: {\n---\n")
    (top / "pairs" / name).symlink_to(top / "secret")
    with pytest.raises(JobError, match="not a file of its own") as error:
        texts(f"hf:{top / 'pairs'}", top / "work")
    assert "TOP SECRET" not in str(error.value)


def saved(folder: Path, text: str) -> Path:
    datasets.Dataset.from_dict({"image_path": ["a.png"], "text": [text]}).save_to_disk(folder)
    return folder


ELSEWHERE = ["../other/{arrow}", "{top}/other/{arrow}", "link.arrow", "linked/{arrow}", "l[i]nk.arrow"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_save_to_disk_wrote_names_no_file_of_others(top: Path, name: str) -> None:
    own, other = saved(top / "own", "own"), saved(top / "other", "SECRET")
    arrow = next(other.glob("*.arrow")).name
    for link in ("link.arrow", "l[i]nk.arrow"):
        (own / link).symlink_to(other / arrow)
    (own / "linked").symlink_to(other)
    state = json.loads((own / "state.json").read_text())
    state["_data_files"] = [{"filename": name.format(arrow=arrow, top=top)}]
    (own / "state.json").write_text(json.dumps(state))
    with pytest.raises(JobError, match="not a file of its own"):
        texts(f"hf:{own}", top / "work")


@pytest.mark.parametrize("split", ["../other", "{top}/other", "linked", "file://{top}/other", "x::file://{top}/other"])
def test_splits_that_save_to_disk_wrote_are_folders_of_its_own(top: Path, split: str) -> None:
    own = top / "own"
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["own"]})}).save_to_disk(own)
    (own / "linked").symlink_to(saved(top / "other", "SECRET"))
    (own / "dataset_dict.json").write_text(json.dumps({"splits": [split.format(top=top)]}))
    with pytest.raises(JobError, match="not a file of its own"):
        texts(f"hf:{own}:{split}" if ":" not in split else f"hf:{own}", top / "work")


def test_a_description_that_save_to_disk_wrote_is_no_link_to_elsewhere(top: Path) -> None:
    own, other = saved(top / "own", "own"), saved(top / "other", "SECRET")
    (own / "dataset_info.json").unlink()
    (own / "dataset_info.json").symlink_to(other / "dataset_info.json")
    with pytest.raises(JobError, match="not a file of its own"):
        texts(f"hf:{own}", top / "work")


@pytest.mark.parametrize("name", ["data.h5", "data.xml", "data.lance", "task.toml", "data.vortex", "x.eval"])
def test_kinds_of_files_that_may_name_others_are_not_read(top: Path, name: str) -> None:
    (top / "pairs" / "data" / "train.csv").unlink()
    (top / "pairs" / name).write_text("<a/>")
    with pytest.raises(JobError, match="their files may name others"):
        texts(f"hf:{top / 'pairs'}", top / "work")


def test_a_link_that_leads_out_has_no_part_in_the_version(top: Path) -> None:
    folder = top / "pairs"
    before = find_input(Storage(), f"hf:{folder}").info.etag
    (folder / "note").symlink_to(top / "secret.zip")
    assert find_input(Storage(), f"hf:{folder}").info.etag == before


@pytest.mark.parametrize(
    "name", ["../x.png", "data/../../x.png", "{top}/x.png", "file://{top}/x.png", "link.png", "linked/x.png"]
)
def test_no_line_about_an_image_brings_one_of_others_into_the_rows(top: Path, name: str) -> None:
    """Whether the package refuses the data set, as its newest versions do, or names the file in the row."""
    folder = top / "pictures"
    folder.mkdir()
    for place in (top, folder, top / "pairs-2"):
        (place / "x.png").write_bytes(png(shade=10 if place == folder else 200))
    (folder / "link.png").symlink_to(top / "x.png")
    (folder / "linked").symlink_to(top / "pairs-2")
    lines = ({"file_name": file, "text": "a"} for file in ("x.png", name.format(top=top)))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "README.md").write_text('---\nconfigs: [{config_name: default, data_files: ["x.png", "*.jsonl"]}]\n---\n')
    (top / "work").mkdir()
    try:
        path = find_input(Storage(), f"hf:{folder}").fetch(top / "work").path
    except JobError:
        return
    assert [image["bytes"] for image in pq.read_table(path)["image"].to_pylist()] == [png(shade=10), None]


def _relative(folder: Path) -> None:
    say(folder, data_files="data/train.csv")


def _absolute(folder: Path) -> None:
    say(folder, data_files=str(folder / "data" / "train.csv"))


def _glob(folder: Path) -> None:
    say(folder, data_files=[{"split": "train", "path": ["data/*.csv"]}])


def _dots(folder: Path) -> None:
    say(folder, data_files="./data/../data/train.csv")


def _data_dir(folder: Path) -> None:
    say(folder, data_dir="data")


def _linked(folder: Path) -> None:
    (folder / "data" / "train.csv").rename(folder / ".kept")
    (folder / "data" / "train.csv").symlink_to("../.kept")


def _zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data" / "train.zip", "w") as archive:
        archive.write(folder / "data" / "train.csv", "train.csv")
    (folder / "data" / "train.csv").unlink()


def _versioned(folder: Path) -> None:
    say(folder, data_files="data/train.csv", version="1.2.3")


@pytest.mark.parametrize("described", [_relative, _absolute, _glob, _dots, _data_dir, _linked, _zipped, _versioned])
def test_whatever_leads_to_files_of_its_own_is_read(top: Path, described: Callable[[Path], None]) -> None:
    described(top / "pairs")
    assert texts(f"hf:{top / 'pairs'}", top / "work") == ["own"]


def test_a_folder_may_itself_be_a_link_and_be_named_relatively(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "alias").symlink_to(top / "pairs")
    monkeypatch.chdir(top)
    assert texts(f"hf:{top / 'alias'}", top / "work") == texts("hf:alias", top / "work 2") == ["own"]


def test_a_folder_that_is_called_like_a_reader_of_the_package_is_read_as_a_folder(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (top / "pairs").rename(top / "csv")
    monkeypatch.chdir(top)
    assert texts("hf:csv", top / "work") == ["own"]


@pytest.mark.parametrize("name", ["[v2]", "run*", "what?"])
def test_a_folder_that_was_saved_may_be_called_like_a_pattern(tmp_path: Path, name: str) -> None:
    datasets.Dataset.from_dict({"image": ["own.png"], "text": ["own"]}).save_to_disk(str(tmp_path / name))
    assert texts(f"hf:{tmp_path / name}", tmp_path / "work") == ["own"]


def test_a_name_without_a_folder_does_not_read_the_working_directory(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(top)
    with pytest.raises(JobError, match="not a file of its own"):
        texts("hf:csv", top / "work")


def test_a_snapshot_in_the_cache_of_the_hub_is_a_folder_of_links_to_its_blobs(top: Path) -> None:
    kept = top / "datasets--acme--pairs"
    snapshot = kept / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (kept / "blobs").mkdir()
    (kept / "blobs" / "77aa").write_text(OWN)
    (snapshot / "train.csv").symlink_to("../../blobs/77aa")
    assert texts(f"hf:{snapshot}", top / "work") == ["own"]
    (snapshot / "train.csv").unlink()
    (snapshot / "train.csv").symlink_to(os.path.relpath(top / "secret.csv", snapshot))
    with pytest.raises(JobError, match="not a file of its own"):
        texts(f"hf:{snapshot}", top / "work 2")


def test_data_sets_that_others_load_meanwhile_are_theirs(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread of the process loads files from anywhere while one is being looked at here."""
    theirs: list[list[str]] = []
    found = datasets.data_files._get_origin_metadata

    def look(*args: Any, **options: Any) -> Any:
        if not theirs:
            theirs.append([])
            thread = threading.Thread(
                target=lambda: theirs.append(datasets.data_files.resolve_pattern(str(top / "secret.csv"), str(top)))
            )
            thread.start()
            thread.join()
        return found(*args, **options)

    monkeypatch.setattr(datasets.data_files, "_get_origin_metadata", look)
    assert texts(f"hf:{top / 'pairs'}", top / "work") == ["own"]
    assert theirs[1] == [str(top / "secret.csv")]
