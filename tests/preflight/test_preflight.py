"""What is looked at before a model is loaded and before a pod is started: typos are told, doubts go on."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator import model
from clip_operator.errors import Cancelled, JobError, RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.preflight import check_before_pod
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.storage import AccessDenied, ObjectNotFound, S3Access, Storage
from tests.conftest import S3, SHAPES
from tests.faulty_store import Fault, Kind, faulty_store

ME = Requester(dag_id="curate", run_id="monday", task_id="score")


@pytest.fixture
def data(shapes_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the demo data set that a test may change."""
    return shutil.copytree(shapes_dataset, tmp_path / "data")


@pytest.fixture(scope="session")
def unloadable(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that is found, and whose loading fails: what is told before that, is told before a model is loaded."""
    folder = tmp_path_factory.mktemp("models") / "unloadable"
    shutil.copytree(model.find_checkpoint(SHAPES, None, Storage()).path, folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    return str(folder)


LOADING_FAILS = "unloadable"


def request(folder: Path | str, **fields: Any) -> EvaluationRequest:
    defaults = {"input": f"{folder}/captions.jsonl", "output": f"{folder}/scored_step1.jsonl", "model": SHAPES}
    return parse_request({**defaults, **fields})


def jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def rows_with(images: Iterable[object], text: object = "a green dot") -> list[dict[str, object]]:
    return [{"image_path": image, "text": text} for image in images]


# ------------------------------------------------------------------------------------------ before a model is loaded


def test_a_missing_column_is_told_before_the_model_is_loaded(data: Path, unloadable: str) -> None:
    with pytest.raises(JobError, match="no column 'caption'; its columns are 'id'"):
        evaluate(request(data, input_text_key="caption", model=unloadable))


def test_a_wrong_image_root_is_told_before_the_model_is_loaded(data: Path, unloadable: str) -> None:
    with pytest.raises(JobError) as told:
        evaluate(request(data, image_root=f"{data}/elsewhere", model=unloadable))
    message = str(told.value)
    assert message.startswith(f"{data}/captions.jsonl: none of the 62 images that were tried can be had ")
    assert "(image_not_found: 62). Row 1: there is no image at " in message
    assert f"image_root: relative image paths start at {data}/elsewhere. Nothing was scored or written" in message
    assert not list(data.glob("scored*"))


def test_of_many_rows_a_few_from_everywhere_are_tried_and_each_reason_has_an_example(
    tmp_path: Path, unloadable: str
) -> None:
    images: list[object] = [f"{number}.png" for number in range(3000)]
    images[::10] = range(300)
    (tmp_path / "captions.jsonl").write_bytes(jsonl(rows_with(images)))
    with pytest.raises(JobError, match=r"none of the 64 of 3,000 images that were tried can be had") as told:
        evaluate(request(tmp_path, model=unloadable))
    assert "image_unreadable: " in str(told.value)
    assert "a value of type int neither names nor holds an image" in str(told.value)
    assert "there is no image at " in str(told.value)


def test_a_bad_start_says_nothing_of_a_table_that_goes_on_well(data: Path, unloadable: str) -> None:
    images = [f"nowhere/{number}.png" for number in range(1000)] + ["images/00000.png"] * 1000
    (data / "captions.jsonl").write_bytes(jsonl(rows_with(images)))
    with pytest.raises(JobError, match=LOADING_FAILS):
        evaluate(request(data, model=unloadable))


def test_images_that_are_wrong_at_equal_distances_are_not_taken_for_all(data: Path, unloadable: str) -> None:
    images = ["nowhere.png" if number % 16 == 0 else "images/00000.png" for number in range(1024)]
    (data / "captions.jsonl").write_bytes(jsonl(rows_with(images)))
    with pytest.raises(JobError, match=LOADING_FAILS):
        evaluate(request(data, model=unloadable))


@pytest.mark.parametrize(
    ("rows", "max_error_rate", "refused"), [(1000, 0.99, False), (1000, 0.8, True), (50, 0.99, True), (50, 1, False)]
)
def test_who_accepts_many_errors_is_refused_only_what_is_certain(
    tmp_path: Path, unloadable: str, rows: int, max_error_rate: float, refused: bool
) -> None:
    (tmp_path / "captions.jsonl").write_bytes(jsonl(rows_with(f"{number}.png" for number in range(rows))))
    with pytest.raises(JobError, match="can be had" if refused else LOADING_FAILS):
        evaluate(request(tmp_path, model=unloadable, max_error_rate=max_error_rate))


def test_an_image_inside_its_row_needs_no_image_root(data: Path, unloadable: str) -> None:
    inline = "data:image/png;base64," + base64.b64encode((data / "images/00000.png").read_bytes()).decode()
    (data / "captions.jsonl").write_bytes(jsonl(rows_with(["nowhere.png", inline])))
    with pytest.raises(JobError, match=LOADING_FAILS):
        evaluate(request(data, model=unloadable))


@pytest.mark.parametrize("rows", [rows_with(["nowhere.png"] * 20, text=None), rows_with([None, " "] * 20)])
def test_rows_without_a_text_or_an_image_are_left_to_the_scoring(
    tmp_path: Path, unloadable: str, rows: list[dict[str, object]]
) -> None:
    (tmp_path / "captions.jsonl").write_bytes(jsonl(rows))
    with pytest.raises(JobError, match=LOADING_FAILS):
        evaluate(request(tmp_path, model=unloadable))


def test_where_the_first_image_comes_no_other_is_fetched(data: Path, s3: S3, unloadable: str) -> None:
    folder = s3.put_folder(data, "data")
    with faulty_store(s3.store.endpoint_url) as proxy, pytest.raises(JobError, match=LOADING_FAILS):
        evaluate(request(folder, model=unloadable), through(proxy.url, s3))
    assert len([asked for asked in proxy.requests if "/images/" in asked.path]) == 1


def through(url: str, s3: S3) -> Storage:
    session = s3.storage.s3_access.session
    return Storage(S3Access(session, url, timeout_seconds=20))


def test_a_bucket_of_images_that_is_closed_to_the_job_is_the_jobs_error_before_the_model_is_loaded(
    data: Path, s3: S3, unloadable: str
) -> None:
    folder = s3.put_folder(data, "data")
    denied = [Fault(Kind.ACCESS_DENIED, when=lambda asked: "/images/" in asked.path or "looks-whether" in asked.path)]
    with (
        faulty_store(s3.store.endpoint_url, denied) as proxy,
        pytest.raises(AccessDenied, match=rf"the bucket s3://{s3.bucket} is closed to this job"),
    ):
        evaluate(request(folder, model=unloadable), through(proxy.url, s3))


def test_a_job_that_is_stopped_while_it_looks_for_images_ends(data: Path, unloadable: str) -> None:
    stop = threading.Event()

    class StopsAtFirstImage(Storage):
        def read(self, uri: str, max_bytes: int | None = None) -> bytes:
            if "/images/" in uri or uri.startswith("/proc/self/fd/"):  # by which a file that is held is read
                stop.set()
                raise ObjectNotFound(uri)
            return super().read(uri, max_bytes)

    with pytest.raises(Cancelled):
        evaluate(request(data, model=unloadable), StopsAtFirstImage(), stop)


def test_rows_that_were_scored_before_need_their_images_no_more(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whether an output is rescored, or a try goes on where the one before has failed."""
    first = evaluate(request(data))
    with pytest.raises(JobError, match="too many rows have no score"):
        evaluate(request(data, output=f"{data}/other.jsonl", max_error_rate=0.01))
    shutil.rmtree(data / "images")
    rescored = evaluate(request(data, rescore="failed", max_error_rate=0.09))
    resumed = evaluate(request(data, output=f"{data}/other.jsonl", max_error_rate=0.09))
    assert first.scores == rescored.scores == resumed.scores
    assert "Rows that an earlier try has scored keep their scores, but none of the" in caplog.text


# ------------------------------------------------------------------------------------------------ before a pod starts


@pytest.fixture
def folder(s3: S3, shapes_dataset: Path) -> str:
    """The demo data set in a bucket."""
    return s3.put_folder(shapes_dataset, "data")


def check(work: EvaluationRequest, storage: Storage) -> None:
    check_before_pod(work, storage, threading.Event())


def large(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return as many rows as make more than is read before a pod is started: the given ones over and over."""
    given = list(rows)
    noise = random.Random(3)
    return [{**given[number % len(given)], "noise": noise.randbytes(3000).hex()} for number in range(1500)]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    return "".join(line + "\n" for line in lines).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    # Else the noise, which is hex, is halved.
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="none", use_dictionary=False)
    return bytes(sink.getvalue())


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "jsonl": jsonl,
    "json": lambda rows: json.dumps(rows).encode(),
    "csv": as_csv,
    "parquet": as_parquet,
    "jsonl.gz": lambda rows: gzip.compress(jsonl(rows), 1),
    "csv.gz": lambda rows: gzip.compress(as_csv(rows), 1),
}


def step(s3: S3, file_type: str, rows: list[dict[str, Any]], **fields: Any) -> EvaluationRequest:
    """Put rows beside the demo's images and return a request to score them."""
    source = s3.put(f"data/rows.{file_type}", WRITERS[file_type](rows))
    return request(f"s3://{s3.bucket}/data", input=source, output=f"s3://{s3.bucket}/out.{file_type}", **fields)


def test_what_is_found_in_order_is_said_in_one_line(folder: str, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check(request(folder), s3.storage)
    assert [record.message for record in caplog.records if record.name.startswith("clip_operator")] == [
        "Checked before anything is started: the input exists, the output is free or this task's own, its 64 rows are "
        "well formed and have the columns, an image that it names exists"
    ]


def test_an_input_or_a_bucket_that_does_not_exist_needs_no_pod(s3: S3) -> None:
    with pytest.raises(JobError, match=r"captions.jsonl does not exist"):
        check(request(f"s3://{s3.bucket}/data"), s3.storage)
    with pytest.raises(JobError, match="the bucket 'no-such-bucket' does not exist"):
        check(request("s3://no-such-bucket/data"), s3.storage)


def test_a_request_that_cannot_be_carried_out_needs_no_pod(folder: str, s3: S3) -> None:
    with pytest.raises(RequestError, match=r"jsonl.*parquet"):
        check(request(folder, output=f"{folder}/out.parquet"), s3.storage)


def test_an_output_that_is_anothers_needs_no_pod(folder: str, s3: S3) -> None:
    s3.put("data/scored_step1.jsonl", b"precious\n")
    with pytest.raises(JobError, match=r"exists already and is not this job's"):
        check(request(folder), s3.storage)
    check(request(folder, overwrite=True), s3.storage)


@pytest.mark.parametrize("file_type", WRITERS)
def test_a_column_that_is_missing_needs_no_pod(s3: S3, file_type: str) -> None:
    work = step(s3, file_type, rows_with(["images/00000.png"]), input_text_key="caption")
    with pytest.raises(JobError, match=r"no column 'caption'; its columns are 'image_path', 'text'"):
        check(work, s3.storage)


@pytest.mark.parametrize("file_type", ["csv", "csv.gz", "parquet"])
def test_a_column_that_is_missing_in_a_large_table_with_a_schema_needs_no_pod(s3: S3, file_type: str) -> None:
    rows = large(rows_with(["images/00000.png"]))
    with pytest.raises(JobError, match=r"no column 'caption'; its columns are 'image_path', 'text', 'noise'"):
        check(step(s3, file_type, rows, input_text_key="caption"), s3.storage)
    with pytest.raises(JobError, match=r"has a column 'noise' already"):
        check(step(s3, file_type, rows, output_key="noise"), s3.storage)
    check(step(s3, file_type, rows), s3.storage)


@pytest.mark.parametrize("file_type", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("enlarged", [True, False])
def test_a_path_into_a_column_is_looked_for_as_a_column_is(
    s3: S3, file_type: str, enlarged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"image_path": "images/00000.png", "meta": {"caption": "a green dot"}}]
    rows = large(rows) if enlarged else rows
    check(step(s3, file_type, rows, input_text_key="meta.caption", max_error_rate=1.0), s3.storage)
    assert "have nothing in" not in caplog.text
    work = step(s3, file_type, rows, input_text_key="meta.text")
    if file_type == "parquet" or not enlarged:
        with pytest.raises(JobError, match=r"no column 'meta.text'; its .*; inside of them there are 'meta.caption'$"):
            check(work, s3.storage)
    else:
        check(work, s3.storage)
        assert "the first 16 rows have nothing in 'meta.text'" in caplog.text


@pytest.mark.parametrize("file_type", ["jsonl", "json", "jsonl.gz"])
def test_a_column_that_the_first_rows_of_a_large_table_lack_may_come_later(
    s3: S3, file_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = large(rows_with(["images/00000.png"]))
    check(step(s3, file_type, rows, input_text_key="caption"), s3.storage)
    assert "the first 16 rows have nothing in 'caption'" in caplog.text
    with pytest.raises(JobError, match=r"has a column 'noise' already"):
        check(step(s3, file_type, rows, output_key="noise"), s3.storage)


def test_a_column_may_be_in_another_part_file_than_the_first(s3: S3, tmp_path: Path) -> None:
    for number, columns in enumerate((["image_path"], ["image_path", "text"])):
        pq.write_table(pa.table({name: ["images/00000.png"] for name in columns}), tmp_path / f"{number}.parquet")
        s3.put(f"parts/{number}.parquet", (tmp_path / f"{number}.parquet").read_bytes())
    fields = {"input": f"s3://{s3.bucket}/parts/", "output": f"s3://{s3.bucket}/out.parquet"}
    check(request("", **fields), s3.storage)
    with pytest.raises(JobError, match="no column 'caption'; its columns are 'image_path', 'text'"):
        check(request("", **fields, input_text_key="caption"), s3.storage)


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_column_may_be_in_the_names_of_folders(
    s3: S3, tmp_path: Path, ending: str, files: int, caplog: pytest.LogCaptureFixture
) -> None:
    pq.write_table(pa.table({"image_path": ["images/00000.png"]}), tmp_path / "t.parquet")
    content = {
        "jsonl": b'{"image_path": "images/00000.png"}\n',
        "csv": b"image_path\nimages/00000.png\n",
        "parquet": (tmp_path / "t.parquet").read_bytes(),
    }
    for number in range(files):
        s3.put(f"parts/text=a shape/n={number}/t.{ending}", content[ending])
    s3.put("images/00000.png", b"looked for, not read")
    places = {"input": f"s3://{s3.bucket}/parts/", "output": f"s3://{s3.bucket}/out.{ending}"}
    check(request("", **places, image_root=f"s3://{s3.bucket}"), s3.storage)
    assert "have nothing in" not in caplog.text


def test_a_malformed_row_of_a_small_table_needs_no_pod(folder: str, s3: S3) -> None:
    s3.put("data/captions.jsonl", b'{"image_path": "a.png", "text": "a"}\n{"image_pa')
    with pytest.raises(JobError, match=r"^s3://\S+/captions.jsonl: line 2 "):
        check(request(folder), s3.storage)


@pytest.mark.parametrize("file_type", WRITERS)
def test_images_none_of_which_exists_need_no_pod(s3: S3, file_type: str) -> None:
    work = step(s3, file_type, rows_with(f"{number}.png" for number in range(20)))
    with pytest.raises(JobError, match=r"none of the 20 images .*\(image_not_found: 20\).*Nothing was started$"):
        check(work, s3.storage)


@pytest.mark.parametrize("file_type", ["jsonl", "json", "csv", "csv.gz"])
def test_that_none_of_the_first_images_of_a_large_table_exists_is_a_warning(
    s3: S3, file_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    check(step(s3, file_type, large(rows_with(["nowhere.png"]))), s3.storage)
    assert "none of the 16 images that were tried can be had (image_not_found: 16)" in caplog.text


def test_a_bucket_of_images_that_does_not_exist_needs_no_pod(folder: str, s3: S3) -> None:
    with pytest.raises(JobError, match="the bucket 'no-such-bucket' does not exist"):
        check(request(folder, image_root="s3://no-such-bucket/images"), s3.storage)


def test_images_that_only_the_pod_may_reach_are_left_to_it(s3: S3) -> None:
    url = "https://images.example.org/1.png"
    check(step(s3, "jsonl", rows_with([url]), image_hosts=["images.example.org"]), s3.storage)
    check(step(s3, "jsonl", rows_with(["1.png", "/mnt/images/1.png"]), image_root="/mnt/images"), s3.storage)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("captions.jsonl", "The input is left to be checked where it is scored"),
        ("images/", "The images are left to be checked where it is scored"),
        ("scored_step1.jsonl", "Whether the output may be written is left to be checked where it is scored"),
    ],
)
def test_what_the_worker_may_not_read_is_left_to_the_pod(
    folder: str, s3: S3, key: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    denied = [Fault(Kind.ACCESS_DENIED, when=lambda asked: key in asked.path)]
    with faulty_store(s3.store.endpoint_url, denied) as proxy:
        check(request(folder), through(proxy.url, s3))
    assert words in caplog.text


def test_an_input_that_changes_hands_while_it_is_read_is_left_to_the_pod(
    folder: str, s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    denied = [Fault(Kind.ACCESS_DENIED, when=lambda asked: asked.method == "GET" and "captions" in asked.path)]
    with faulty_store(s3.store.endpoint_url, denied) as proxy:
        check(request(folder), through(proxy.url, s3))
    assert "What is in the input is left to be checked where it is scored" in caplog.text


def test_a_local_input_may_be_mounted_in_the_pod_alone(s3: S3) -> None:
    check(request("/mnt/only-in-the-pod", output=f"s3://{s3.bucket}/out.jsonl"), s3.storage)


@pytest.mark.parametrize("rows", [rows_with(["images/00000.png"]), large(rows_with(["images/00000.png"]))])
def test_a_worker_without_pyarrow_leaves_parquet_to_the_pod(
    s3: S3, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    work = step(s3, "parquet", rows, input_text_key="caption")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "clip_operator.tables.parquet.reader", raising=False)
    with caplog.at_level(logging.WARNING):
        check(work, s3.storage)
    assert caplog.text == ""


def test_work_that_is_done_or_under_way_is_the_pods_to_judge(folder: str, s3: S3) -> None:
    work = request(folder, requested_by=ME.model_dump())
    evaluate(work, s3.storage)
    tuesday = work.model_copy(update={"requested_by": ME.model_copy(update={"run_id": "tuesday"})})
    other = work.model_copy(update={"requested_by": ME.model_copy(update={"task_id": "other"})})
    for key in s3.object_keys():
        if "/images/" in key:
            s3.client.delete_object(Bucket=s3.bucket, Key=key)
    for again in (work, tuesday, other):
        check(again, s3.storage)
    s3.client.delete_object(Bucket=s3.bucket, Key="data/scored_step1.jsonl")
    s3.client.delete_object(Bucket=s3.bucket, Key="data/captions.jsonl")
    claim = {"requested_by": ME.model_dump(), "claimed_at": "2026-01-01T00:00:00Z"}
    s3.put("data/scored_step1.jsonl.claim.json", json.dumps(claim).encode())
    check(work, s3.storage)
    s3.client.delete_object(Bucket=s3.bucket, Key="data/scored_step1.jsonl.claim.json")
    with pytest.raises(JobError, match="does not exist"):
        check(work, s3.storage)


def test_images_are_not_asked_for_where_results_of_an_earlier_run_may_stand_for_them(
    folder: str, s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    s3.put("data/scored_step1.jsonl.resume/0123456789abcdef/000000000000.json", b"{}")
    check(request(folder, image_root=f"s3://{s3.bucket}/elsewhere"), s3.storage)
    assert "none of the 62 images that were tried can be had" in caplog.text


def test_a_check_that_is_stopped_ends(folder: str, s3: S3) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        check_before_pod(request(folder), s3.storage, stop)
