"""What a job writes is never what it reads, however the two are spelled; nothing is scored or written then."""

from __future__ import annotations

import logging
import re
import shutil
import signal
import threading
from pathlib import Path

import pytest

from clip_operator import evaluate
from clip_operator.cli import main
from clip_operator.dataflow import FileStorage, ImageCLIPEvaluator
from clip_operator.errors import RequestError
from clip_operator.preflight import check_before_pod
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import plan_shards
from clip_operator.storage import Storage
from tests.conftest import S3, SHAPES

_REFUSED = r"another|outside|over the one it is read from"
_ROW = b'{"image_path": "a.png", "text": "a"}\n'

SPELLINGS = {
    "as it is": "x.jsonl",
    "with a dot": "./x.jsonl",
    "absolute": "{}/x.jsonl",
    "with two slashes": "{}//x.jsonl",
    "as a URI": "file://{}/x.jsonl",
    "as a quoted URI": "FILE://localhost{}/%78.jsonl",
    "by its parent": "images/../x.jsonl",
    "by a link": "link.jsonl",
    "by a linked folder": "here/x.jsonl",
}


@pytest.fixture
def folder(shapes_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a step, ``x.jsonl``, a link to it and one to the directory itself."""
    folder = shutil.copytree(shapes_dataset, tmp_path / "data")
    (folder / "captions.jsonl").rename(folder / "x.jsonl")
    (folder / "link.jsonl").symlink_to("x.jsonl")
    (folder / "here").symlink_to(".")
    monkeypatch.chdir(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("flag", ["--output", "--filtered-output"])
def test_a_step_is_never_written_over_the_one_it_is_read_from(
    folder: Path, flag: str, spelling: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "clip_operator")  # as it was, when the test is over
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    before = contents(folder)
    arguments = ["--input", "x.jsonl", "--model", SHAPES, "--input-text-key", "alt_text", "--overwrite"]
    if flag == "--filtered-output":
        arguments += ["--output", "out.jsonl", "--min-score", "0.5"]
    code = main(["evaluate", *arguments, flag, SPELLINGS[spelling].format(folder)])
    assert code == 2
    assert re.search(_REFUSED, caplog.text)
    assert contents(folder) == before


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_two_outputs_are_not_one(folder: Path, spelling: str) -> None:
    (folder / "x.jsonl").rename(folder / "in.jsonl")
    fields = {"input": "in.jsonl", "output": "x.jsonl", "min_score": 0.5, "model": SHAPES, "overwrite": True}
    with pytest.raises(RequestError, match="must be another object than"):
        evaluate(parse_request({**fields, "filtered_output": SPELLINGS[spelling].format(folder)}))


def test_a_link_that_is_read_leads_to_what_must_not_be_written(folder: Path) -> None:
    with pytest.raises(RequestError, match="never written over the one it is read from"):
        evaluate(parse_request({"input": "link.jsonl", "output": "x.jsonl", "model": SHAPES, "overwrite": True}))


def _checks(request: EvaluationRequest, storage: Storage) -> None:
    """Ask each of the doors that begin work; all of them must refuse."""
    with pytest.raises(RequestError, match=_REFUSED) as refused:
        evaluate(request, storage)
    with pytest.raises(RequestError) as planned:
        plan_shards(request, storage, shards=1)
    assert str(planned.value) == str(refused.value)
    if request.input.startswith("s3"):  # of local files the worker knows nothing
        with pytest.raises(RequestError) as checked:
            check_before_pod(request, storage, threading.Event())
        assert str(checked.value) == str(refused.value)


@pytest.mark.parametrize("output", ["s3a://{}/a/x.jsonl", "S3://{}/a/x.jsonl", "s3://{}/a//x.jsonl"])
def test_an_object_is_itself_by_any_spelling_of_its_uri(s3: S3, output: str) -> None:
    source = s3.put("a/x.jsonl", _ROW)
    fields = {"model": SHAPES, "overwrite": True, "min_score": 0.5}
    for outputs in (
        {"output": output.format(s3.bucket), "filtered_output": f"s3://{s3.bucket}/f.jsonl"},
        {"output": f"s3://{s3.bucket}/o.jsonl", "filtered_output": output.format(s3.bucket)},
    ):
        with pytest.raises(RequestError, match=_REFUSED):
            evaluate(parse_request({"input": source, **fields, **outputs}), s3.storage)
    assert s3.object_keys() == ["a/x.jsonl"]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a/", "a/out.jsonl"),
        ("a/", "a//deeper/out.jsonl"),
        ("a/*.jsonl", "a/out.jsonl"),
        ("a/p?rt-1.jsonl", "a//part-1.jsonl"),
        ("a/", "a/part-1.jsonl"),
        ("a/part-1.jsonl", "a//part-1.jsonl"),
    ],
)
def test_an_output_is_not_put_where_the_input_is_read_from(s3: S3, source: str, output: str) -> None:
    s3.put("a/part-1.jsonl", _ROW)
    root = f"s3://{s3.bucket}"
    request = parse_request({"input": f"{root}/{source}", "output": f"{root}/{output}", "overwrite": True})
    _checks(request, s3.storage)
    assert s3.object_keys() == ["a/part-1.jsonl"]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("{}/steps/", "{}/here/steps/out.jsonl"),
        ("./steps/", "file://{}/steps/deeper/out.jsonl"),
        ("steps/*.jsonl", "{}/steps/../steps/out.jsonl"),
        ("file://{}/st%65ps/", "steps/out.jsonl"),
        ("hf:steps", "./steps/out.parquet"),
    ],
)
def test_a_local_folder_is_the_same_by_any_spelling(folder: Path, source: str, output: str) -> None:
    (folder / "steps").mkdir()
    (folder / "steps" / "part-1.jsonl").write_bytes(_ROW)
    request = parse_request({"input": source.format(folder), "output": output.format(folder), "overwrite": True})
    _checks(request, Storage())
    assert list(contents(folder / "steps")) == ["part-1.jsonl"]


@pytest.mark.parametrize("source", ["s/x_step1/part-*.jsonl", "s/x_step1/", "s/x_step1/*", "s/x_step1/part-1.jsonl"])
def test_part_files_are_not_put_among_those_that_are_read(tmp_path: Path, source: str) -> None:
    Storage().write(_ROW, f"{tmp_path}/s/x_step1/part-1.jsonl")
    fields = {"input": f"{tmp_path}/{source}", "output": f"{tmp_path}/s/../s/x_step1/part-*.jsonl", "overwrite": True}
    with pytest.raises(RequestError, match=_REFUSED):
        plan_shards(parse_request(fields), Storage(), shards=1)


def test_what_belongs_to_an_output_does_not_replace_the_input(tmp_path: Path) -> None:
    source = f"{tmp_path}/x.json.samples.json"
    Storage().write(b"[]", source)
    with pytest.raises(RequestError, match="never written over the one it is read from"):
        evaluate(parse_request({"input": source, "output": f"{tmp_path}/x.json"}))


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("x_step1.jsonl", "x_step2.jsonl"),
        ("x_step1/part-*.jsonl", "x_step2.jsonl"),
        ("x_step1/", "x_step2/part-*.jsonl"),
        ("x_step1/", "x_step1.json"),
        ("x_step1/part-*.jsonl", "x_step1/out.jsonl"),
        ("x_step1/", "x_step1/_scored/out.jsonl"),
        ("a*b.jsonl", "a and b.jsonl"),
    ],
)
def test_an_output_beside_what_is_read_is_as_good_as_any(tmp_path: Path, source: str, output: str) -> None:
    for name in ("x_step1.jsonl", "x_step1/part-1.jsonl", "a*b.jsonl"):
        Storage().write(_ROW, f"{tmp_path}/{name}")
    request = parse_request({"input": f"{tmp_path}/{source}", "output": f"{tmp_path}/{output}"})
    assert plan_shards(request, Storage(), shards=1).shards


def test_dataflows_steps_are_not_written_over_the_first_entry(folder: Path) -> None:
    shutil.copy("x.jsonl", "x_step1.jsonl")
    before = contents(folder)
    storage = FileStorage("./x_step1.jsonl", str(folder), "x").step()
    with pytest.raises(RequestError, match="never written over the one it is read from"):
        ImageCLIPEvaluator(SHAPES, overwrite=True).run(storage, input_text_key="alt_text")
    assert contents(folder) == before


@pytest.mark.parametrize("spelling", ["./{0}", "{1}//{0}", "file://{1}/{0}"])
def test_work_that_is_done_is_done_by_any_spelling(folder: Path, spelling: str) -> None:
    def request(spelling: str) -> EvaluationRequest:
        where = {name: spelling.format(f"{name}.jsonl", folder) for name in ("x", "out", "kept")}
        fields = {"input": where["x"], "output": where["out"], "filtered_output": where["kept"], "min_score": 0.5}
        return parse_request({**fields, "model": SHAPES, "input_text_key": "alt_text", "image_root": str(folder)})

    first = evaluate(request("{0}" if spelling.startswith(".") else "{1}/{0}"))
    before = contents(folder)
    assert evaluate(request(spelling)) == first
    assert contents(folder) == before
