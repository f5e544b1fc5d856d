"""File names, gzip and conversions: what is accepted, what is refused, and what the refusal says."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError, RequestError
from clip_operator.tables import (
    Compression,
    FileType,
    TableFormat,
    check_conversion,
    create_table,
    file_type_of,
    open_table,
    packed,
)
from tests.tables.rewriting import rewrite, rewritten

JSONL, JSON, CSV, TSV, PARQUET, TAR = (FileType(table_format) for table_format in TableFormat)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/a.b/step_step1.jsonl", FileType(TableFormat.JSONL)),
        ("/data/rows.NDJSON.GZ", FileType(TableFormat.JSONL, compression=Compression.GZIP)),
        ("rows.json", FileType(TableFormat.JSON)),
        ("rows.json.gz", FileType(TableFormat.JSON, compression=Compression.GZIP)),
        ("rows.csv", FileType(TableFormat.CSV)),
        ("rows.v2.csv.gz", FileType(TableFormat.CSV, compression=Compression.GZIP)),
        ("cc3m.TSV.gz", FileType(TableFormat.TSV, compression=Compression.GZIP)),
        ("rows.parquet", FileType(TableFormat.PARQUET)),
        ("rows.pq", FileType(TableFormat.PARQUET)),
        ("s3://bucket/00000.tar", FileType(TableFormat.TAR)),
        ("jsonl", FileType(TableFormat.JSONL)),
    ],
)
def test_a_name_tells_the_file_type(name: str, expected: FileType) -> None:
    assert file_type_of(name) == expected


def test_a_file_type_reads_as_the_ending_of_its_name() -> None:
    assert [str(file_type_of(ending)) for ending in ("csv.gz", "ndjson")] == ["csv.gz", "jsonl"]


@pytest.mark.parametrize("name", ["s3://bucket/rows.pkl", "rows.pickle", "pickle", "rows.pkl.gz"])
def test_pickle_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(RequestError, match=r"runs whatever code the file holds.*parquet.*jsonl"):
        file_type_of(name)


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "", "rows.gz", "gz", "jsonl/", "rows.jsonl.lz4", "rows.tar.lz4"])
def test_other_names_are_refused_with_the_formats_there_are(name: str) -> None:
    with pytest.raises(RequestError, match=r"jsonl, json, csv, .* and parquet"):
        file_type_of(name)


def test_gzip_around_parquet_is_refused() -> None:
    with pytest.raises(RequestError, match="compresses inside"):
        file_type_of("rows.parquet.gz")


@pytest.mark.parametrize(
    ("ending", "compression"),
    [
        *(("tar.gz", "gz"), ("tgz", "gz"), ("TAR.ZST", "zst"), ("tzst", "zst")),
        *(("tar.bz2", "bz2"), ("tbz2", "bz2"), ("tbz", "bz2"), ("tar.xz", "xz"), ("txz", "xz")),
    ],
)
def test_a_compressed_tar_is_known_by_either_name(ending: str, compression: str) -> None:
    assert file_type_of(f"s3://b/00000.{ending}") == FileType(TableFormat.TAR, Compression(compression))


LOSSLESS = [(JSONL, JSONL), (JSONL, JSON), (JSON, JSON), (JSON, JSONL)]
LOSSLESS += [(CSV, CSV), (CSV, JSON), (CSV, JSONL), (TSV, TSV), (TSV, JSON), (TSV, JSONL)]
LOSSLESS += [(PARQUET, PARQUET), (TAR, JSONL), (TAR, JSON), (TAR, PARQUET)]


@pytest.mark.parametrize(("source", "target"), list(product([JSONL, JSON, CSV, TSV, PARQUET, TAR], repeat=2)))
def test_only_lossless_conversions_are_accepted(source: FileType, target: FileType) -> None:
    if (source, target) in LOSSLESS:
        check_conversion(source, target)
    else:
        with pytest.raises(RequestError, match=rf"{source} table cannot be written as {target} .*: .+ Choose "):
            check_conversion(source, target)


def test_a_writer_refuses_a_conversion_with_loss(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").touch()
    with open_table(tmp_path / "t.jsonl", JSONL) as reader, pytest.raises(RequestError, match="Choose jsonl or json"):
        create_table(tmp_path / "out.csv", CSV, reader, {})
    assert not (tmp_path / "out.csv").exists()


def test_pretty_json_becomes_one_object_a_line_with_its_literals_kept(tmp_path: Path) -> None:
    content = (
        b'\xef\xbb\xbf[\n  {\n    "a": 1.10,\r\n    "b": ["x  \\n  y",\n      {\n\n}, 1e400 ]\n  },\n'
        b'  {"c":"00"},\n  {\n  }\n]\n'
    )
    output = rewritten(tmp_path, "t.json", content, {"s": [0.5, None, 1.0]}, target="t.jsonl")
    assert output == (b'{"a": 1.10, "b": ["x  \\n  y", {}, 1e400 ], "s": 0.5}\n{"c":"00","s":null}\n{"s": 1.0}\n')


def test_lines_become_an_array_with_their_text_kept(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf {"a":1.10}\r\n\n{"b": 1e400} '
    for rows in (1, 10):
        output = rewritten(tmp_path, "t.jsonl", content, {"s": [0.5, None]}, rows, target="t.json")
        assert output == b'[\n{"a":1.10,"s":0.5},\n{"b": 1e400, "s": null}\n]\n'
    assert rewritten(tmp_path, "t.jsonl", b"\n", {"s": []}, target="t.json") == b"[]"


@pytest.mark.parametrize("target", ["t.jsonl", "t.json"])
def test_csv_becomes_objects_of_strings_in_the_order_of_the_header(tmp_path: Path, target: str) -> None:
    content = '\ufeffb,"a,x",t\r\n007,"x\n""y""",é\r\n1.10\r\n'.encode()
    output = rewritten(tmp_path, "t.csv", content, {"s": [0.5, None], "t": ["new", None]}, 1, target)
    first = '{"b": "007", "a,x": "x\\n\\"y\\"", "t": "new", "s": 0.5}'
    second = '{"b": "1.10", "a,x": "", "t": null, "s": null}'
    lines = f"{first}\n{second}\n" if target == "t.jsonl" else f"[\n{first},\n{second}\n]\n"
    assert output.decode() == lines


def test_csv_with_a_name_twice_cannot_become_objects(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="names the column 'a' 2 times"):
        rewritten(tmp_path, "t.csv", b"a,b,a\n1,2,3\n", {"s": [1.0]}, target="t.jsonl")


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": lambda data: pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(),
}
COMPRESSIONS = [ending for ending in PACK if ending]


@pytest.mark.parametrize(("source", "target"), list(product(PACK, repeat=2)))
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.jsonl", b'{"a":1}\r\n{"a":2}', b'{"a":1,"s":0.5}\r\n{"a":2,"s":null}'),
        ("t.json", b'[{"a":1},\n{"a":2}]', b'[{"a":1,"s":0.5},\n{"a":2,"s":null}]'),
        ("t.csv", b"a\r\n1\r\n2", b"a,s\r\n1,0.5\r\n2,"),
        ("t.tsv", b"a\tb\r\n1\t2\r\n2", b"a\tb\ts\r\n1\t2\t0.5\r\n2\t\t"),
    ],
)
def test_compression_of_input_and_output_are_independent(
    tmp_path: Path, name: str, content: bytes, expected: bytes, source: str, target: str
) -> None:
    output = rewritten(tmp_path, name + source, PACK[source](content), {"s": [0.5, None]}, target=name + target)
    assert UNPACK[target](output) == expected


def test_gzip_output_holds_neither_time_nor_name(tmp_path: Path) -> None:
    output = rewritten(tmp_path, "t.jsonl", b"{}", {"s": [1.0]}, target="t.jsonl.gz")
    assert output[3] == 0
    assert output[4:8] == bytes(4)


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_compressed_output_is_the_same_however_it_is_written(tmp_path: Path, ending: str) -> None:
    content = "".join(f'{{"n": {number**3}}}\n' for number in range(20_000)).encode()
    output = rewritten(tmp_path, "t.jsonl", content, {}, 7, target=f"t.jsonl{ending}")
    for size in (1000, len(content)):
        stream = io.BytesIO()
        with packed(stream, Compression(ending[1:])) as text:
            for start in range(0, len(content), size):
                text.write(content[start : start + size])
        assert stream.getvalue() == output


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_several_members_or_frames_are_one_table(tmp_path: Path, ending: str) -> None:
    pack = PACK[ending]
    data = pack(b'{"a":1}\n{"a"') + pack(b"") + pack(b":2}\n") + pack(b"")
    added = {"s": [1.0, 2.0]}
    assert rewritten(tmp_path, f"t.jsonl{ending}", data, added, target="t.jsonl").count(b"\n") == 2
    if ending in (".gz", ".xz"):  # may be padded
        data = data + bytes(8)
        assert rewritten(tmp_path, f"t.jsonl{ending}", data, added, target="t.jsonl").count(b"\n") == 2


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_compressed_file_may_be_cut_off_anywhere_and_that_is_said(tmp_path: Path, ending: str) -> None:
    data = PACK[ending](b'{"a":1}\n' * 3)
    for size in range(1, len(data)):
        path = tmp_path / f"t.jsonl{ending}"
        for content in (data[:size], data + data[:size]):
            path.write_bytes(content)
            with (
                pytest.raises(JobError, match=r"data ends too early|is not whole"),
                open_table(path, file_type_of(path.name)) as reader,
            ):
                reader.scan()


LARGE_WINDOWS = {
    # The frame's header asks for a window of 2 GiB.
    ".zst": b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00",
    ".xz": lzma.compress(b"{}", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 256 << 20, "preset": 0}]),
}


@pytest.mark.parametrize("ending", LARGE_WINDOWS)
def test_a_window_that_takes_too_much_memory_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.jsonl{ending}"
    path.write_bytes(LARGE_WINDOWS[ending])
    with (
        pytest.raises(JobError, match="data needs too much memory"),
        open_table(path, file_type_of(path.name)) as table,
    ):
        table.scan()


TEXTS = {
    "t.jsonl": "".join(f'{{"n": {number}, "square": {number**2}}}\n' for number in range(2000)),
    "t.json": json.dumps([{"n": number, "square": number**2} for number in range(2000)]),
    "t.csv": "n,square\n" + "".join(f"{number},{number**2}\n" for number in range(2000)),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("breaking", "problem"),
    [
        (gzip.decompress, "The file name ends in .gz but the data is not whole gzip data"),
        (lambda packed: packed[: len(packed) // 2], "The gzip data ends too early"),
        (lambda packed: packed + b"rest", "The file name ends in .gz but the data is not whole gzip data"),
        (lambda packed: packed[:10] + b"\xff" * 40 + packed[50:], "The gzip data is damaged"),
        (gzip.compress, "line 1 is not UTF-8 text .* is gzip-compressed"),
    ],
)
def test_broken_gzip_is_named_in_words(
    tmp_path: Path, name: str, breaking: Callable[[bytes], bytes], problem: str
) -> None:
    path = tmp_path / f"{name}.gz"
    path.write_bytes(breaking(gzip.compress(TEXTS[name].encode(), mtime=0)))
    with pytest.raises(JobError, match=problem), open_table(path, file_type_of(path.name)) as reader:
        reader.scan()


NOT_WHOLE = r"The file name ends in \.\w+ but the data is not whole (bzip2|xz|zstd) data"


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("ending", [".bz2", ".xz", ".zst"])
@pytest.mark.parametrize(
    ("breaking", "problem"),
    [
        (lambda _: b"text " * 9, NOT_WHOLE),
        (lambda data: data[: len(data) // 2], "The (bzip2|xz|zstd) data ends too early: the file was cut off"),
        (lambda data: data + b"rest" * 4, NOT_WHOLE),
        (lambda data: data[:4] + bytes(4) + data[8:], NOT_WHOLE),
    ],
)
def test_other_broken_data_is_named_in_words(
    tmp_path: Path, name: str, ending: str, breaking: Callable[[bytes], bytes], problem: str
) -> None:
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(breaking(PACK[ending](TEXTS[name].encode())))
    with pytest.raises(JobError, match=problem), open_table(path, file_type_of(path.name)) as reader:
        reader.scan()


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv"])
def test_compressed_data_without_an_ending_in_the_name_is_recognised(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / name
    path.write_bytes(PACK[ending](TEXTS[name].encode()))
    with (
        pytest.raises(JobError, match=rf"-compressed: let the file name end in {ending}"),
        open_table(path, file_type_of(name)) as reader,
    ):
        reader.scan()


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_full_disk_is_told_in_words(tmp_path: Path, suffix: str, rows: int) -> None:
    source, target = tmp_path / f"t.{suffix.removesuffix('.gz')}", tmp_path / f"out.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"a": range(rows)}), source)
    else:
        content = {"json": b"[" + b"{}," * (rows - 1) + b"{}]", "csv": b"a\n" + b"1\n" * rows}
        source.write_bytes(content.get(suffix, b"{}\n" * rows))
    target.symlink_to("/dev/full")  # a device that is there for this; only the link is removed
    with pytest.raises(JobError) as caught:
        rewrite(source, target, {"s": [row / 7 for row in range(rows)]})
    assert str(caught.value).startswith(f"cannot write temporary files to {tmp_path}: the disk is full; make room")


def test_a_folder_that_is_gone_is_told_in_words(tmp_path: Path) -> None:
    for name, content in (("t.jsonl", b"{}"), ("t.csv", b"a\n1\n")):
        with pytest.raises(JobError, match=r"cannot write temporary files to .*/gone: No such file or directory"):
            rewritten(tmp_path, name, content, {"s": [1.0]}, target=f"../{tmp_path.name}/gone/{name}")
