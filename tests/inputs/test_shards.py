"""Inputs cut and fetched in shards: together they are the whole, and each reads only its own part of the store."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from clip_operator.errors import JobError
from clip_operator.inputs import Input, LocalInput, find_input
from clip_operator.request import Shard
from clip_operator.storage import S3Access, Storage
from tests.conftest import S3
from tests.faulty_store import FaultyStore, faulty_store

_COLUMNS = ["image_path", "text"]
_QUIRKS = ["plain", "", "a, comma", 'a "quote"', "two\nlines", "two\r\nlines", "naïve 漢字 🎉", " spaces "]

Row = tuple[object, ...]


def shards_of(given: Input, rows_at_most: int) -> list[Shard]:
    """The shards that a plan would make of every span."""
    cuts = given.cut(rows_at_most)
    return [
        Shard(
            index=index,
            of=len(cuts),
            input_etag=given.info.etag,
            start=cut.start,
            stop=cut.stop,
            first_row=cut.first_row,
            rows=cut.rows,
        )
        for index, cut in enumerate(cuts)
    ]


def rows_in(local: LocalInput) -> list[Row]:
    with local.open(_COLUMNS) as table:
        chunks = list(table.chunks(5))
        assert table.scan().rows == sum(map(len, chunks))
        return [row for chunk in chunks for row in zip(*map(chunk.column, _COLUMNS), strict=True)]


def fetched(given: Input, shard: Shard | None = None) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return rows_in(given.fetch(Path(folder), shard))


def text_of(ending: str, texts: Sequence[str], quirk: int = 0) -> bytes:
    """A file with a row for each text; ``quirk`` chooses how it is laid out between its rows."""
    objects = [{"image_path": f"{number}.png", "text": text} for number, text in enumerate(texts)]
    line_end = "\r\n" if quirk & 1 else "\n"
    blank = line_end if quirk & 2 else ""
    mark = "\ufeff" if quirk & 4 else ""
    if ending.startswith("jsonl"):
        content = "".join(json.dumps(row, ensure_ascii=False) + line_end + blank for row in objects)
    elif ending.startswith("json"):
        content = json.dumps(objects, ensure_ascii=False, indent=2 if quirk & 1 else None) + blank
    else:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator=line_end)
        writer.writerow(["image_path", "a header\nof two lines", "text"])
        writer.writerows([row["image_path"], "", row["text"]] for row in objects)
        content = blank + out.getvalue().removesuffix(line_end if quirk & 8 else "")
    data = (mark + content).encode()
    return gzip.compress(data) if ending.endswith("gz") else data


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "jsonl.gz", "json.gz", "csv.gz"])
@settings(max_examples=20, deadline=None, derandomize=True)
@drawn(
    texts=st.lists(st.sampled_from(_QUIRKS), max_size=12),
    rows_at_most=st.integers(1, 13),
    quirk=st.integers(0, 15),
)
def test_the_shards_of_a_text_in_order_are_the_whole(
    ending: str, texts: list[str], rows_at_most: int, quirk: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"pairs.{ending}"
        path.write_bytes(text_of(ending, texts, quirk))
        given = find_input(Storage(), str(path))
        shards = shards_of(given, rows_at_most)
        parts = [fetched(given, shard) for shard in shards]
        assert [len(part) for part in parts] == [shard.rows for shard in shards]
        whole = fetched(given)
        assert [row for part in parts for row in part] == whole
        assert [text for _, text in whole] == texts


def parquet(path: Path, rows: int, group_rows: int) -> Path:
    """A Parquet file of small pages that do not compress well, so that bytes tell what was read."""
    random_bytes = random.Random(rows)
    table = pa.table(
        {
            "image_path": [f"{number}.png" for number in range(rows)],
            "text": [random_bytes.randbytes(100).hex() for _ in range(rows)],
        }
    )
    pq.write_table(
        table, path, row_group_size=group_rows, use_dictionary=False, write_batch_size=64, data_page_size=16 << 10
    )
    return path


@pytest.mark.parametrize(("rows", "group_rows"), [(10, 3), (10, 10), (1, 1)])
def test_the_row_groups_of_a_parquet_file_in_order_are_the_whole(tmp_path: Path, rows: int, group_rows: int) -> None:
    given = find_input(Storage(), str(parquet(tmp_path / "pairs.parquet", rows, group_rows)))
    assert [row for shard in shards_of(given, 1) for row in fetched(given, shard)] == fetched(given)
    assert [cut.rows for cut in given.cut(1)] == [min(group_rows, rows - at) for at in range(0, rows, group_rows)]


def test_a_parquet_file_without_row_groups_is_one_shard_without_rows(tmp_path: Path) -> None:
    schema = pa.schema({"image_path": pa.string(), "text": pa.string()})
    pq.ParquetWriter(tmp_path / "pairs.parquet", schema).close()
    given = find_input(Storage(), str(tmp_path / "pairs.parquet"))
    assert [fetched(given, shard) for shard in shards_of(given, 1)] == [[]]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "jsonl.gz", "parquet"])
def test_the_shards_of_many_files_in_order_are_the_whole(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "step"
    for number, texts in enumerate([["a"], [], ["b", "c\nd"], ["e"]]):
        (folder / f"day={number}").mkdir(parents=True)
        path = folder / f"day={number}" / f"part.{ending}"  # the same name in every folder
        if ending == "parquet":
            pq.write_table(pa.table({"image_path": pa.array(texts, "str"), "text": pa.array(texts, "str")}), path)
        else:
            path.write_bytes(text_of(ending, texts, quirk=2))
    given = find_input(Storage(), f"{folder}/")
    whole = fetched(given)
    assert [text for _, text in whole] == ["a", "b", "c\nd", "e"]
    shards = shards_of(given, 1)
    assert [len(fetched(given, shard)) for shard in shards] == [1, 0, 2, 1]
    two = shards[1].model_copy(update={"stop": 3})
    assert fetched(given, two) == [row for shard in shards[1:3] for row in fetched(given, shard)]
    assert [row for shard in shards for row in fetched(given, shard)] == whole


_SEGMENT = 500


def put_rows(folder: Path, name: str, texts: Sequence[str]) -> str:
    """Write the rows, as one file or, where a folder is named, as files of a segment each."""
    if name.endswith("/*"):
        (folder / "many").mkdir()
        for first in range(0, len(texts), _SEGMENT):
            put_rows(folder / "many", f"{first:04}.{name[:-2]}", texts[first : first + _SEGMENT])
        return f"{folder}/many/"
    if name.endswith("parquet"):
        columns = {"image_path": [text.encode() for text in texts], "text": texts}
        pq.write_table(pa.table(columns), folder / name, row_group_size=_SEGMENT // 2, use_dictionary=False)
    else:
        (folder / name).write_bytes(text_of(name.partition(".")[2], texts, quirk=2))
    return str(folder / name)


@pytest.mark.parametrize("chunk_bytes", [1 << 20, 20_000], ids=["rows as usual", "large rows"])
@pytest.mark.parametrize(
    "name", ["t.jsonl", "t.json", "t.csv", "t.jsonl.gz", "t.parquet", "jsonl/*", "csv/*", "parquet/*"]
)
def test_shards_are_read_in_the_chunks_of_the_whole(
    tmp_path: Path, name: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks decide on batches, so on last bits of scores: no chunk reaches across a segment, however large rows are,
    and none is judged by rows of another."""
    monkeypatch.setattr("clip_operator.tables.table.CHUNK_BYTES", chunk_bytes)
    drawn_sizes = random.Random(3)
    # In the second segment a row is ten times as large as in the others, as where images stand inside of rows.
    sizes = [drawn_sizes.randrange(50) * (10 if _SEGMENT <= n < 2 * _SEGMENT else 1) for n in range(1300)]
    given = find_input(Storage(), put_rows(tmp_path, name, ["x" * size for size in sizes]))

    def chunks(shard: Shard | None) -> list[tuple[int, int]]:
        """Where each chunk begins, in the shard, and how many rows it has."""
        with tempfile.TemporaryDirectory() as folder, given.fetch(Path(folder), shard).open(_COLUMNS) as table:
            return [(chunk.first_row, len(chunk)) for chunk in table.chunks(256, _SEGMENT)]

    shards = shards_of(given, _SEGMENT)
    if name == "t.parquet":  # of two row groups each
        shards = [shard.model_copy(update={"stop": min(shard.stop + 1, len(shards))}) for shard in shards[::2]]
    assert len(shards) == 3
    of_shards = [
        (n * _SEGMENT + first_row, rows) for n, shard in enumerate(shards) for first_row, rows in chunks(shard)
    ]
    assert of_shards == chunks(None)
    assert {first_row for first_row, _ in of_shards} >= {0, 500, 1000}
    if chunk_bytes < 1 << 20:
        assert len(of_shards) > 7


def tar(texts: Sequence[str]) -> bytes:
    """A WebDataset tar with a picture and a caption for each text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number, text in enumerate(texts):
            for ending, content in (("jpg", f"picture of {text}"), ("txt", text)):
                member = tarfile.TarInfo(f"{number:03d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


def test_tars_are_cut_between_them_and_keep_their_names(s3: S3, tmp_path: Path) -> None:
    for number, texts in enumerate([["a", "b"], ["c"]]):
        s3.put(f"laion/{number:05d}.tar", tar(texts))
        s3.put(f"laion/{number:05d}_stats.json", b"{}")
    given = find_input(s3.storage, f"s3://{s3.bucket}/laion/*.tar")
    whole = fetched(given)
    assert whole == [(b"picture of a", "a"), (b"picture of b", "b"), (b"picture of c", "c")]
    shards = shards_of(given, 1)
    assert [row for shard in shards for row in fetched(given, shard)] == whole
    with given.fetch(tmp_path, shards[1]).open(["__url__"]) as table:
        assert [url for chunk in table.chunks(5) for url in chunk.column("__url__")] == ["00001.tar"]
    assert fetched(find_input(s3.storage, f"s3://{s3.bucket}/laion/00001.tar")) == whole[2:]


def through(proxy: FaultyStore, s3: S3) -> Storage:
    session = s3.storage.s3_access.session
    return Storage(S3Access(session, proxy.url))


def bytes_asked_for(proxy: FaultyStore) -> int:
    """How many bytes the ranges of all requests so far make up; a GET without a range fails the test."""
    ranges = [request.headers["Range"] for request in proxy.requests if request.method == "GET" and request.key]
    bounds = [value.removeprefix("bytes=").split("-") for value in ranges]
    return sum(int(last) - int(first) + 1 for first, last in bounds)


def test_a_shard_of_a_parquet_file_reads_its_row_groups_and_the_footer(s3: S3, tmp_path: Path) -> None:
    path = parquet(tmp_path / "pairs.parquet", 40_000, 2000)
    uri = s3.put("pairs.parquet", path.read_bytes())
    size, footer = path.stat().st_size, int.from_bytes(path.read_bytes()[-8:-4], "little")
    with faulty_store(s3.store.endpoint_url, []) as proxy:
        given = find_input(through(proxy, s3), uri)
        shard = shards_of(given, 2000)[7]
        planned = bytes_asked_for(proxy)
        assert planned < size / 10
        local = given.fetch(tmp_path, shard)
        read = bytes_asked_for(proxy) - planned
    group = pq.read_metadata(path).row_group(7)
    assert read < sum(group.column(leaf).total_compressed_size for leaf in range(2)) + 3 * footer + (256 << 10)
    assert len(rows_in(local)) == 2000
    sparse = (tmp_path / "input").stat()
    assert sparse.st_size == size
    assert sparse.st_blocks * 512 < size / 4


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_shard_of_a_text_reads_its_own_bytes_and_at_most_a_header(s3: S3, tmp_path: Path, ending: str) -> None:
    random_bytes = random.Random(1)
    content = text_of(ending, [random_bytes.randbytes(5000).hex() for _ in range(300)])
    uri = s3.put(f"pairs.{ending}", content)
    shards = shards_of(find_input(s3.storage, uri), 30)
    assert len(shards) == 10
    with faulty_store(s3.store.endpoint_url, []) as proxy:
        local = find_input(through(proxy, s3), uri).fetch(tmp_path, shards[4])
        assert len(rows_in(local)) == 30
        header = {"jsonl": 0, "json": 64 << 10, "csv": 256 << 10}[ending]  # of JSON the start, which tells its kind
        assert shards[4].stop - shards[4].start <= bytes_asked_for(proxy) <= shards[4].stop - shards[4].start + header


def test_a_shard_of_many_files_reads_only_its_own_files(s3: S3, tmp_path: Path) -> None:
    for number in range(5):
        s3.put(f"step/part-{number}.jsonl", text_of("jsonl", [f"text {number}"]))
    with faulty_store(s3.store.endpoint_url, []) as proxy:
        given = find_input(through(proxy, s3), f"s3://{s3.bucket}/step/")
        shard = Shard(index=1, of=3, input_etag=given.info.etag, start=2, stop=4)
        local = given.fetch(tmp_path, shard)
        assert {request.key for request in proxy.requests if request.key} == {"step/part-2.jsonl", "step/part-3.jsonl"}
    assert [text for _, text in rows_in(local)] == ["text 2", "text 3"]


def test_the_text_of_a_gzip_shard_is_unpacked_and_no_longer_than_the_shard(s3: S3, tmp_path: Path) -> None:
    content = text_of("csv", [f"caption {number}" for number in range(1000)])
    given = find_input(s3.storage, s3.put("pairs.csv.gz", gzip.compress(content)))
    shard = shards_of(given, 100)[3]
    local = given.fetch(tmp_path, shard)
    assert (str(given.file_type), str(local.file_type)) == ("csv.gz", "csv")
    header = content[: content.index(b"0.png")]
    assert (tmp_path / "input").read_bytes() == header + content[shard.start : shard.stop]
    assert (local.fragment.first, local.fragment.last) == (False, False)


def test_a_header_larger_than_the_first_read_is_found(tmp_path: Path) -> None:
    columns = [f'"column {number}\nof many é"' for number in range(9000)]
    path = tmp_path / "pairs.csv"
    path.write_text(",".join([*_COLUMNS, *columns]) + "\n" + "a.png,first\nb.png,second\n")
    given = find_input(Storage(), str(path))
    assert [fetched(given, shard) for shard in shards_of(given, 1)] == [[("a.png", "first")], [("b.png", "second")]]


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.csv.gz", "pairs.parquet", "step/"])
def test_an_input_that_was_replaced_after_the_plan_is_refused_before_anything_is_read(
    s3: S3, tmp_path: Path, name: str
) -> None:
    def put(texts: list[str]) -> str:
        if name == "pairs.parquet":
            pq.write_table(pa.table({"image_path": texts, "text": texts}), tmp_path / "table.parquet")
            return s3.put(name, (tmp_path / "table.parquet").read_bytes())
        if name == "step/":
            s3.put("step/part-0.jsonl", b"")
            s3.put("step/part-1.jsonl", text_of("jsonl", texts))
            return f"s3://{s3.bucket}/step/"
        return s3.put(name, text_of(name.partition(".")[2], texts))

    (shard, *_) = shards_of(find_input(s3.storage, put(["a", "b"])), 1)
    uri = put(["a", "c"])
    with pytest.raises(JobError, match="changed since the step was planned; clear the plan task"):
        find_input(s3.storage, uri).fetch(tmp_path, shard)
    assert not (tmp_path / "input").exists()


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz", "pairs.parquet"])
def test_an_input_that_is_replaced_while_a_shard_is_fetched_is_never_mixed(s3: S3, tmp_path: Path, name: str) -> None:
    path = parquet(tmp_path / "table.parquet", 10, 2)
    old, new = (text_of(name.partition(".")[2], [letter] * 10) for letter in "ab")
    if name == "pairs.parquet":
        old, new = path.read_bytes(), path.read_bytes().replace(b"0.png", b"9.png")
    given = find_input(s3.storage, s3.put(name, old))
    shard = shards_of(given, 2)[1]
    s3.put(name, new)
    with pytest.raises(JobError, match="changed while it was being read; run the task again"):
        given.fetch(tmp_path, shard)


def test_gzip_data_that_is_cut_off_or_damaged_is_said_in_words(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    whole = text_of("jsonl.gz", [f"caption {random.Random(n).random()}" for n in range(500)])
    path.write_bytes(whole)
    last = shards_of(find_input(Storage(), str(path)), 100)[-1]
    for broken, words in (
        (whole[: len(whole) // 2], r"pairs.jsonl.gz: The gzip data ends too early"),
        (whole[:200] + b"\xff" * 200 + whole[400:], r"pairs.jsonl.gz: The gzip data is damaged"),
        (gzip.compress(gzip.decompress(whole)[: last.stop - 10]), "ends 10 bytes before the end of the shard"),
    ):
        path.write_bytes(broken)
        given = find_input(Storage(), str(path))
        with pytest.raises(JobError, match=words):
            given.fetch(tmp_path, last.model_copy(update={"input_etag": given.info.etag}))
