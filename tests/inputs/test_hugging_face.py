"""Hugging Face data sets as inputs: local folders of every kind, versions, splits, images, and what goes wrong."""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_operator.errors import JobError, RequestError
from clip_operator.inputs import Input, find_input
from clip_operator.request import Shard
from clip_operator.storage import Storage
from clip_operator.tables import TableFormat

datasets: Any = importlib.import_module("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def jsonl(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


def image_folder(folder: Path, images: int = 5) -> Path:
    """A folder as ``imagefolder`` reads it: images, and a line about each."""
    folder.mkdir(parents=True)
    for number in range(images):
        (folder / f"{number}.png").write_bytes(png(number))
    jsonl(folder / "metadata.jsonl", [{"file_name": f"{n}.png", "text": f"caption {n}"} for n in range(images)])
    return folder


def captions(folder: Path, rows: int = 10) -> Path:
    jsonl(folder / "train.jsonl", [{"image_path": f"{n}.png", "text": f"caption {n}"} for n in range(rows)])
    return folder


def found(uri: str) -> Input:
    return find_input(Storage(), uri)


def rows_of(given: Input, folder: Path, columns: Sequence[str], shard: Shard | None = None) -> list[tuple[object, ...]]:
    folder.mkdir()
    with given.fetch(folder, shard).open(columns) as table:
        chunks = list(table.chunks(7))
        assert sum(map(len, chunks)) == table.scan().rows
        return [row for chunk in chunks for row in zip(*map(chunk.column, columns), strict=True)]


def test_a_folder_of_images_comes_as_parquet_with_the_very_bytes_of_the_images(tmp_path: Path) -> None:
    given = found(f"hf:{image_folder(tmp_path / 'pictures')}")
    assert given.file_type.format is TableFormat.PARQUET
    assert rows_of(given, tmp_path / "work", ["image", "text"]) == [
        ({"bytes": png(n), "path": f"{n}.png"}, f"caption {n}") for n in range(5)
    ]
    features = datasets.Features.from_arrow_schema(pq.read_schema(tmp_path / "work" / "input"))
    assert isinstance(features["image"], datasets.Image)  # other tools show it as images still


def test_images_that_the_data_set_holds_itself_are_left_as_they_are(tmp_path: Path) -> None:
    not_an_image = {"bytes": b"no image at all", "path": "somewhere.png"}
    made = datasets.Dataset.from_dict(
        {"image": [not_an_image, None, {"bytes": png(3), "path": None}]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    made.save_to_disk(tmp_path / "saved")
    assert [image for (image,) in rows_of(found(f"hf:{tmp_path / 'saved'}"), tmp_path / "work", ["image"])] == [
        not_an_image,
        None,
        {"bytes": png(3), "path": None},
    ]


def test_a_path_in_a_data_set_does_not_bring_files_of_this_machine_into_the_output(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    folder = tmp_path / "pairs"
    inside = folder / "own" / "own.png"
    link = folder / "own" / "link.png"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(png(1))
    link.symlink_to(secret)
    paths = [str(secret), str(folder / ".." / "secret.png"), str(link), str(inside), "https://127.0.0.1:9/x.png", "no"]
    schema = datasets.Features({"image": datasets.Image()}).arrow_schema
    column = pa.array([{"bytes": None, "path": path} for path in paths], schema.field("image").type)
    pq.write_table(pa.table([column], schema=schema), folder / "train.parquet")
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.parquet\n---\n")
    images = [image for (image,) in rows_of(found(f"hf:{folder}"), tmp_path / "work", ["image"])]
    assert images == [
        {"bytes": png(1), "path": "own.png"} if path == str(inside) else {"bytes": None, "path": path} for path in paths
    ]


@pytest.mark.parametrize("rows_at_most", [1, 3, 10, 100])
def test_shards_in_order_are_the_whole(tmp_path: Path, rows_at_most: int) -> None:
    given = found(f"hf:{captions(tmp_path / 'pairs')}")
    spans = given.cut(rows_at_most)
    assert [span.first_row for span in spans] == list(range(0, 10, rows_at_most))
    rows = []
    for index, span in enumerate(spans):
        shard = Shard(index=index, of=len(spans), input_etag=given.info.etag, start=span.start, stop=span.stop)
        part = rows_of(given, tmp_path / f"work {index}", ["image_path", "text"], shard)
        assert len(part) == span.rows
        rows += part
    assert rows == rows_of(given, tmp_path / "work", ["image_path", "text"])


def test_shards_are_read_in_the_chunks_of_the_whole_also_where_images_stand_in_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard's row groups are others than those of the whole, which begin at its first row."""
    monkeypatch.setattr("clip_operator.tables.table.CHUNK_BYTES", 20_000)
    monkeypatch.setattr("clip_operator.inputs.hugging_face_parquet._GROUP_BYTES", 40_000)
    drawn = random.Random(5)
    images = [{"bytes": drawn.randbytes(drawn.randrange(1, 4_000)), "path": f"{n}.png"} for n in range(130)]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": images, "text": [f"caption {n}" for n in range(130)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    given = found(f"hf:{tmp_path / 'saved'}")

    def chunks(name: str, shard: Shard | None = None) -> list[tuple[int, int, int]]:
        first_row = 0 if shard is None else shard.start
        (tmp_path / name).mkdir()
        with given.fetch(tmp_path / name, shard).open(["text"]) as table:
            return [(first_row + chunk.first_row, len(chunk), chunk.size) for chunk in table.chunks(256, 50)]

    spans = given.cut(50)
    shards = [
        Shard(index=index, of=len(spans), input_etag=given.info.etag, start=span.start, stop=span.stop)
        for index, span in enumerate(spans)
    ]
    of_shards = [chunk for shard in shards for chunk in chunks(f"shard {shard.index}", shard)]
    assert of_shards == chunks("whole")
    assert len(of_shards) > 9


def test_many_images_go_into_row_groups_of_bounded_size(tmp_path: Path) -> None:
    pixels = os.urandom(1_200_000)
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": pixels, "path": None}] * 40}, features=datasets.Features({"image": datasets.Image()})
    )
    made.save_to_disk(tmp_path / "saved")
    work = tmp_path / "work"
    work.mkdir()
    found(f"hf:{tmp_path / 'saved'}").fetch(work)
    footer = pq.read_metadata(work / "input")
    assert footer.num_rows == 40
    assert max(footer.row_group(group).num_rows for group in range(footer.num_row_groups)) == 32


def test_a_split_is_chosen_by_name_and_needs_none_where_there_is_one(tmp_path: Path) -> None:
    folder = captions(tmp_path / "pairs")
    assert found(f"hf:{folder}").info.etag == found(f"hf:{folder}:train").info.etag
    jsonl(folder / "test.jsonl", [{"image_path": "t.png", "text": "of the test split"}])
    assert rows_of(found(f"hf:{folder}:test"), tmp_path / "work", ["text"]) == [("of the test split",)]
    assert found(f"hf:{folder}:test").info.etag != found(f"hf:{folder}:train").info.etag
    with pytest.raises(RequestError, match=r"several splits; name one of train, test, as in hf:.*pairs:train$"):
        found(f"hf:{folder}")
    with pytest.raises(RequestError, match="no split 'dev'; name one of train, test"):
        found(f"hf:{folder}:dev")


def test_a_saved_data_set_of_several_splits_is_read_like_any_other(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert rows_of(found(f"hf:{tmp_path / 'saved'}:test"), tmp_path / "work", ["text"]) == [("test",)]
    with pytest.raises(RequestError, match="several splits"):
        found(f"hf:{tmp_path / 'saved'}")
    with pytest.raises(RequestError, match="has no configurations"):
        found(f"hf:{tmp_path / 'saved'}:large:test")


def test_a_configuration_is_chosen_by_name_and_the_choices_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    jsonl(folder / "one.jsonl", [{"text": "first"}])
    jsonl(folder / "two.jsonl", [{"text": "second"}])
    entries = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("one", "two"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
    assert rows_of(found(f"hf:{folder}:two:train"), tmp_path / "work", ["text"]) == [("second",)]
    with pytest.raises(RequestError, match=r"several configurations; name one of one, two, as in hf:.*:one:train$"):
        found(f"hf:{folder}")
    with pytest.raises(RequestError, match="no configuration 'three'; name one of one, two"):
        found(f"hf:{folder}:three:train")


_PRINT_VERSION = """
import sys
from clip_operator.inputs import find_input
from clip_operator.storage import Storage
print(*(find_input(Storage(), uri).info.etag for uri in sys.argv[1:]))
"""


def test_the_version_is_the_same_in_another_process_for_a_copy_with_other_times(tmp_path: Path) -> None:
    plain, saved = captions(tmp_path / "a" / "pairs"), tmp_path / "a" / "saved"
    datasets.Dataset.from_dict({"text": ["one", "two"]}).save_to_disk(saved)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    copies = [tmp_path / "b" / "pairs", tmp_path / "b" / "saved"]
    os.utime(copies[0] / "train.jsonl", (1, 1))
    environment = {
        **os.environ,
        "HF_DATASETS_CACHE": str(tmp_path / "another cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    told = subprocess.run(
        [sys.executable, "-c", _PRINT_VERSION, *(f"hf:{copy}" for copy in copies)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert told == [found(f"hf:{plain}").info.etag, found(f"hf:{saved}").info.etag]


def test_a_shard_is_refused_when_the_data_changed_after_the_cut(tmp_path: Path) -> None:
    folder = captions(tmp_path / "pairs")
    etag = found(f"hf:{folder}").info.etag
    captions(folder, rows=11)
    shard = Shard(index=0, of=2, input_etag=etag, start=0, stop=5)
    with pytest.raises(JobError, match="changed since the step was planned; clear the plan task"):
        found(f"hf:{folder}").fetch(tmp_path, shard)


def test_code_that_comes_with_a_data_set_does_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "tricky"
    folder.mkdir()
    (folder / "tricky.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    with pytest.raises(JobError, match="scripts are no longer supported"):
        found(f"hf:{folder}")
    assert not (tmp_path / "it ran").exists()


def test_what_keeps_a_data_set_from_being_read_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.jsonl").write_text('{"a": 1}\n{"a"')
    (tmp_path / "no rows").mkdir()  # which the package cannot read
    (tmp_path / "no rows" / "train.csv").write_text("image_path,text\n")
    for name in ("empty", "broken", "no rows"):
        with pytest.raises(JobError, match=f"the data set hf:.*{name} cannot be loaded: .*"):
            found(f"hf:{tmp_path / name}")
    with pytest.raises(JobError, match="hf:nobody/nothing cannot be loaded"):  # the tests are off the hub
        found("hf:nobody/nothing")


@pytest.mark.parametrize("uri", ["hf:", "hf:name:", "hf:a:b:c:d", "hf::train"])
def test_a_malformed_name_is_refused_with_the_right_forms(uri: str) -> None:
    with pytest.raises(RequestError, match="write hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT"):
        found(uri)


def test_without_the_package_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RequestError, match=r"pip install 'datasets>=4'"):
        found(f"hf:{tmp_path}")


def test_no_progress_bar_is_drawn_and_the_switch_is_put_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    datasets.enable_progress_bars()
    rows_of(found(f"hf:{captions(tmp_path / 'pairs')}"), tmp_path / "work", ["text"])
    assert capfd.readouterr().err == ""
    assert datasets.is_progress_bar_enabled()
