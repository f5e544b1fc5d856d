"""Which input a URI names: objects, folders and patterns of part files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError, RequestError
from clip_operator.inputs import Input, delta, find_input
from clip_operator.storage import ObjectNotFound, Storage
from tests.conftest import S3

_ROW = b'{"text": "a"}\n'


def names(given: Input, root: str) -> list[str]:
    return [info.uri.removeprefix(root) for info in given.files]


def put(folder: Path, *paths: str, content: bytes = _ROW) -> str:
    """Write files of this content below the folder; return the folder with its slash."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return f"{folder}/"


def test_the_version_of_one_object_is_what_the_store_says_of_it(s3: S3) -> None:
    for key in ("pairs.jsonl", "pairs.parquet", "pairs.tar"):
        uri = s3.put(key, _ROW)
        given = find_input(s3.storage, uri)
        assert given.info == s3.storage.stat(uri)
        assert given.files == (given.info,)
        assert str(given.file_type) == key.removeprefix("pairs.")


def test_a_folder_as_spark_writes_it_is_its_part_files_in_the_order_of_their_names(s3: S3) -> None:
    for number in (10, 2, 0):
        s3.put(f"step/part-{number:05d}-c000.snappy.parquet", b"rows")
    s3.put("step/_SUCCESS", b"")
    s3.put("step/_metadata", b"footers")
    s3.put("step/.part-00000-c000.snappy.parquet.crc", b"sum")
    s3.put("step/", b"")
    s3.put("step 2/part-00000.parquet", b"rows")
    uri = f"s3://{s3.bucket}/step/"
    given = find_input(s3.storage, uri)
    assert names(given, uri) == [f"part-{number:05d}-c000.snappy.parquet" for number in (0, 2, 10)]
    assert (given.info.uri, given.info.size) == (uri, 12)
    assert str(given.file_type) == "parquet"


def test_a_folder_is_read_to_any_depth_without_what_is_hidden_or_our_own(tmp_path: Path) -> None:
    uri = put(
        tmp_path,
        "day=2/part-0.jsonl",
        "day=1/part-0.jsonl",
        "day=1/part-1.jsonl",
        "_temporary/0/part-9.jsonl",
        ".staging/part-9.jsonl",
        "day=1/_part-9.jsonl",
        "scores.jsonl.manifest.json",
        "scores.jsonl.claim.json",
        "scores.jsonl.samples.json",
        "scores.jsonl.report.html",
        "scores.jsonl.worst-rows.csv",
        "day=1/rows_step1.samples.json",
        "scores.jsonl.resume/abc/0.json",
        "scores.jsonl.shards/abc/plan.json",
    )
    assert names(find_input(Storage(), uri), uri) == ["day=1/part-0.jsonl", "day=1/part-1.jsonl", "day=2/part-0.jsonl"]


def test_a_part_file_without_content_belongs_to_the_table(tmp_path: Path) -> None:
    uri = put(tmp_path, "part-0.jsonl", "part-2.jsonl")
    put(tmp_path, "part-1.jsonl", "marker", content=b"")
    assert names(find_input(Storage(), uri), uri) == ["part-0.jsonl", "part-1.jsonl", "part-2.jsonl"]


def test_many_files_are_another_version_when_one_is_added_removed_or_replaced(s3: S3) -> None:
    uri = f"s3://{s3.bucket}/"
    s3.put("a.jsonl", _ROW)
    s3.put("b.jsonl", _ROW)
    first = find_input(s3.storage, uri).info
    assert find_input(s3.storage, uri).info == first
    assert find_input(s3.storage, uri + "*.jsonl").info.etag == first.etag
    s3.put("b.jsonl", _ROW.replace(b"a", b"b"))
    replaced = find_input(s3.storage, uri).info
    s3.put("c.jsonl", _ROW)
    added = find_input(s3.storage, uri).info
    assert len({first.etag, replaced.etag, added.etag}) == 3
    assert (first.size, added.size) == (28, 42)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("part-*.jsonl", ["part-1.jsonl", "part-10.jsonl", "part-[2].jsonl"]),
        ("part-?.jsonl", ["part-1.jsonl"]),
        ("part-[2].*", ["part-[2].jsonl"]),
        ("*", ["other.jsonl", "part-1.jsonl", "part-10.jsonl", "part-[2].jsonl"]),
        ("_*.jsonl", ["_hidden.jsonl"]),
    ],
)
def test_a_pattern_takes_the_files_in_one_folder_whose_names_match(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    files = ["part-1.jsonl", "part-10.jsonl", "part-[2].jsonl", "other.jsonl", "_hidden.jsonl", "deeper/part-3.jsonl"]
    uri = put(tmp_path, *files)
    put(tmp_path, "other.jsonl.manifest.json", "part-1.jsonl.claim.json")
    assert names(find_input(Storage(), uri + pattern), uri) == found


def test_what_stands_beside_an_output_is_no_part_file_for_a_pattern(tmp_path: Path) -> None:
    beside = (
        "samples.json",
        "worst-rows.csv",
        "manifest.json",
        "claim.json",
        "report.html",
        "resume/abc/0.json",
        "shards/abc/1.json",
    )
    uri = put(tmp_path, "x_step1.json", "y_step1/part-1.json", *(f"x_step1.json.{name}" for name in beside))
    put(tmp_path, *(f"y_step1.{name}" for name in beside))
    assert names(find_input(Storage(), uri + "*.json"), uri) == ["x_step1.json"]
    assert names(find_input(Storage(), uri), uri) == ["x_step1.json", "y_step1/part-1.json"]


def test_data_of_others_may_be_called_samples(tmp_path: Path) -> None:
    uri = put(tmp_path, "test.samples.json", "train.samples.json")
    assert names(find_input(Storage(), uri), uri) == ["test.samples.json", "train.samples.json"]


def test_a_pattern_with_the_scheme_of_files_matches_names_as_they_are_on_the_disk(tmp_path: Path) -> None:
    put(tmp_path / "a folder", "part é 1.jsonl", "part é 22.jsonl")
    uri = f"file://{tmp_path}/a%20folder/"
    assert names(find_input(Storage(), uri + "part%20?%20?.jsonl"), uri) == ["part%20%C3%A9%201.jsonl"]
    assert len(find_input(Storage(), uri).files) == 2


def test_a_pattern_in_the_store_lists_no_more_than_what_starts_like_it(s3: S3) -> None:
    for key in ("x/part-1.jsonl", "x/part-2.jsonl", "x/part-1.jsonl.manifest.json", "x/part-3/deeper.jsonl"):
        s3.put(key, _ROW)
    uri = f"s3://{s3.bucket}/x/"
    assert names(find_input(s3.storage, uri + "part-*"), uri) == ["part-1.jsonl", "part-2.jsonl"]


def test_an_object_whose_name_has_wildcards_is_taken_as_it_is(s3: S3) -> None:
    s3.put("what?/is*this.jsonl", _ROW)
    s3.put("what?/is it this.jsonl", _ROW)
    uri = f"s3://{s3.bucket}/what?/is*this.jsonl"
    assert find_input(s3.storage, uri).info == s3.storage.stat(uri)


def test_wildcards_in_the_name_of_a_folder_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "day=1/part.jsonl")
    for pattern in ("day=*/part.jsonl", "day=*/*.jsonl"):
        with pytest.raises(RequestError, match="wildcards are understood in the last part of a URI only"):
            find_input(Storage(), f"{tmp_path}/{pattern}")


def test_what_img2dataset_writes_is_several_tables_and_a_pattern_names_one(s3: S3) -> None:
    for number in range(2):
        for ending in (".tar", ".parquet", "_stats.json"):
            s3.put(f"laion/{number:05d}{ending}", b"...")
    uri = f"s3://{s3.bucket}/laion/"
    with pytest.raises(JobError) as refused:
        find_input(s3.storage, uri)
    message = str(refused.value)
    assert "several types (2 parquet, 2 tar, 2 json)" in message
    suggested = message.rpartition(" ")[2]
    assert names(find_input(s3.storage, suggested), uri) == ["00000.parquet", "00001.parquet"]
    given = find_input(s3.storage, uri + "*.tar")
    assert names(given, uri) == ["00000.tar", "00001.tar"]
    assert [(cut.start, cut.stop, cut.first_row, cut.rows) for cut in given.cut(10)] == [
        (0, 1, None, None),
        (1, 2, None, None),
    ]


def test_plain_and_compressed_parts_are_not_one_table(tmp_path: Path) -> None:
    uri = put(tmp_path, "a.jsonl", "b.jsonl.gz")
    with pytest.raises(JobError, match=r"1 jsonl, 1 jsonl.gz.*pattern such as .*/\*\.jsonl$"):
        find_input(Storage(), uri)


def test_a_folder_without_tables_says_what_is_in_it(tmp_path: Path) -> None:
    uri = put(tmp_path, "a.txt", "b.txt", "LICENSE")
    with pytest.raises(JobError, match="holds no table to read, only 2 txt, 1 without an ending"):
        find_input(Storage(), uri)


def test_nothing_found_is_said_for_folders_patterns_and_objects(s3: S3) -> None:
    uri = f"s3://{s3.bucket}/none/"
    for name, words in (("", "is an empty folder"), ("*.jsonl", "matches no file"), ("x.jsonl", "none/x.jsonl")):
        with pytest.raises(ObjectNotFound, match=words):
            find_input(s3.storage, uri + name)


def test_a_folder_named_without_its_slash_is_recognised(s3: S3, tmp_path: Path) -> None:
    s3.put("step.parquet/part-0.parquet", b"rows")
    with pytest.raises(ObjectNotFound, match=r"let the input end with a slash: s3://.*/step\.parquet/$"):
        find_input(s3.storage, f"s3://{s3.bucket}/step.parquet")
    put(tmp_path, "step.parquet/part-0.parquet")
    with pytest.raises(ObjectNotFound, match="let the input end with a slash"):
        find_input(Storage(), f"{tmp_path}/step.parquet")
    with pytest.raises(RequestError, match="To read all files of a folder, let the input end with a slash"):
        find_input(Storage(), str(tmp_path))


def test_rows_of_part_files_are_told_where_footers_tell_them(tmp_path: Path) -> None:
    for number, rows in enumerate((3, 0, 4)):
        pq.write_table(pa.table({"text": ["a"] * rows}), tmp_path / f"part-{number}.parquet")
    given = find_input(Storage(), f"{tmp_path}/")
    assert [(cut.start, cut.stop, cut.first_row, cut.rows) for cut in given.cut(1)] == [
        (0, 1, 0, 3),
        (1, 2, 3, 0),
        (2, 3, 3, 4),
    ]


def test_of_many_parquet_files_those_that_tell_the_columns_of_all_are_known(tmp_path: Path) -> None:
    for number in range(201):
        columns = {"a": [1], "b": ["x"]} if number in (7, 150) else {"a": [1]}
        pq.write_table(pa.table(columns), tmp_path / f"part-{number:03d}.parquet")
    given = find_input(Storage(), f"{tmp_path}/")
    assert [cut.rows for cut in given.cut(1)] == [1] * 201
    assert given.columns_of == (0, 7)
    assert find_input(Storage(), f"{tmp_path}/part-00?.parquet").columns_of == (0, 7)
    assert find_input(Storage(), f"{tmp_path}/part-1?0.parquet").columns_of == (0, 5)
    assert find_input(Storage(), f"{tmp_path}/part-02?.parquet").columns_of == ()


def test_a_part_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "part-0.parquet")
    uri = put(tmp_path, "part-1.parquet", content=b"no such thing at all")
    with pytest.raises(JobError, match=r"part-1\.parquet: The file cannot be read as Parquet"):
        find_input(Storage(), uri).cut(1)


def test_a_part_file_that_is_gone_when_it_is_fetched_is_named(tmp_path: Path) -> None:
    given = find_input(Storage(), put(tmp_path / "step", "part-0.jsonl", "part-1.jsonl"))
    (tmp_path / "step" / "part-1.jsonl").unlink()
    with pytest.raises(JobError, match=r"part-1\.jsonl"):
        given.fetch(tmp_path)


@pytest.mark.parametrize(("inputs", "named"), [("{}a.tar", False), ("{}", True)])
def test_an_error_names_the_tar_where_the_input_does_not(tmp_path: Path, inputs: str, named: bool) -> None:
    folder = put(tmp_path / "step", "a.tar", content=b"no such thing " * 1000)
    local = find_input(Storage(), inputs.format(folder)).fetch(tmp_path)
    with pytest.raises(JobError, match="is not a tar") as told, local.open() as table:
        table.scan()
    assert ("a.tar" in str(told.value)) is named


@pytest.mark.parametrize(
    ("log", "kind", "how"),
    [
        ("_delta_log/00000000000000000000.json", "Delta Lake", "to_pyarrow_dataset"),
        ("_delta_log/00000000000000000010.checkpoint.parquet", "Delta Lake", "to_pyarrow_dataset"),
        (".hoodie/hoodie.properties", "Apache Hudi", "Spark"),
        ("metadata/00001-a.metadata.json", "Apache Iceberg", "pyiceberg"),
    ],
)
@pytest.mark.parametrize("place", ["", "dt=a/", "data/", "data/dt=a/*.parquet", "*.parquet", "up"])
def test_files_whose_log_tells_which_are_live_are_not_read(
    tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch, log: str, kind: str, how: str, place: str
) -> None:
    monkeypatch.setattr(delta, "find_spec", lambda _: None)  # as where the library for Delta Lake is not installed
    for name in (log, "dt=a/part.parquet", "data/part.parquet", "data/dt=a/part.parquet", "part.parquet"):
        put(tmp_path / "t", name)
        s3.put(f"tables/t/{name}", b"x")
    for root in (f"{tmp_path}", f"s3://{s3.bucket}/tables"):
        uri = f"{root}/" if place == "up" else f"{root}/t/{place}"
        with pytest.raises(JobError, match=f"holds a table of {kind}: .*{log}, which is not read here.*{how}"):
            find_input(s3.storage, uri)


def test_a_folder_called_metadata_alone_is_no_log(tmp_path: Path) -> None:
    uri = put(tmp_path, "data/part.jsonl", "metadata/part.jsonl", "metadata/deeper/a.metadata.jsonl")
    assert len(find_input(Storage(), uri).files) == 3
    assert len(find_input(Storage(), f"{uri}data/").files) == 1
