"""Tables of careless programs and hostile people: kept to the byte, or refused in words, in bounded memory and time."""

from __future__ import annotations

import base64
import gzip
import io
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import ClipOperatorError, JobError
from tests.hostile.jobs import SECONDS, plain_image, plain_score, run
from tests.hostile.table_files import (
    ROW,
    changed_tables,
    kept_tables,
    not_utf8,
    odd_columns,
    parquet,
    refused_tables,
    same_name_twice,
    shared_value_bomb,
    written,
)
from tests.images.pictures import drawn, encoded

IMAGE = encoded(drawn())
KEPT = kept_tables()
CHANGED = changed_tables()
REFUSED = refused_tables()

# What the fuzzer found: footers that state -2,490 rows, at which Arrow ends the process, and more than there are.
FOOTERS_THAT_LIE = [
    "UEFSMRUEGRw1ABgGc2NoZW1hFQAAFgAZHBkMFgAW8yYAFgAAGRwYDEFSUk9XOnNjaGVtYRhMLy8vLy96QUFBQUFRQUFBQUFBQUtBQXdBQmdBRkFBZ0FD"
    "Z0FBQUFBQkJBQU1BQUFBQ0FBSUFBQUFCQUFJQUFBQUJBQUFBQUFBQUFBPQAYIHBhcnF1ZXQtY3BwLWFycm9BIHZlcnNpb24gMjYuMC4xGQwApAAAAFBB"
    "UjE=",
    "UEFSMRUEGRw1ABgGc2NoZW1hFQAAFgAZHBkMFgAWCCYAFgAAGRwYDEFSUk9XOnNjaGVtYRhMLy8vLy96QUFBQUFRQUFBQUFBQUtBQXdBQmdBRkFBZ0FD"
    "Z0FBQUFBQkJBQU1BQUFBQ0FBSUFBQUFCQUFJQUFBQUJBQUFBQUFBQUFBPQAYIHBhcnF1ZXQtY3BwLWFycm93IHZlcnNpb24gMjYuMC4xGQwApAAAAFBB"
    "UjE=",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.png").write_bytes(IMAGE)
    return tmp_path


def scored(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    target = folder / f"scored-{name}"
    run(folder / name, target)
    return target


def score() -> float:
    return plain_score(plain_image(IMAGE), ROW["text"])


def without_scores(name: str, content: bytes) -> tuple[bytes, list[float]]:
    """Return a text table without the column that was added, and what was in it."""
    number = rb"(0\.\d+)"
    member = rb',\s*"clip_score":\s*' + number + rb"(?=\s*}\s*(?:[,\]\r\n]|$))"
    added = re.compile(rb"," + number + rb"(?=\r?\n|$)" if ".csv" in name else member)
    scores = [float(score) for score in added.findall(content)]
    rest = added.sub(b"", content)
    return rest.replace(b",clip_score", b"", 1) if ".csv" in name else rest, scores


@pytest.mark.parametrize("name", KEPT)
def test_every_byte_of_a_well_formed_table_stays(folder: Path, name: str) -> None:
    content = KEPT[name]
    output = scored(folder, name, content).read_bytes()
    if name.endswith(".gz"):
        content, output = (gzip.decompress(data) for data in (content, output))
    rest, scores = without_scores(name, output)
    assert rest == content
    assert len(scores) == content.count(b"good.png")
    assert scores == pytest.approx([score()] * len(scores), abs=1e-5)


@pytest.mark.parametrize("name", CHANGED)
def test_blank_lines_are_no_rows_and_short_rows_are_filled_up(folder: Path, name: str) -> None:
    content, expected = CHANGED[name]
    rest, scores = without_scores(name, scored(folder, name, content).read_bytes())
    assert rest == expected
    assert len(scores) == expected.count(b"good.png")


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_table_is_refused_in_words_and_nothing_is_written(folder: Path, name: str) -> None:
    content, problem = REFUSED[name]
    with pytest.raises(ClipOperatorError) as caught:
        scored(folder, name, content)
    message = str(caught.value)
    assert re.search(problem, message), message
    assert message.startswith(f"{folder}/{name}")
    assert message.isprintable()
    assert len(message) < 600
    assert sorted(path.name for path in folder.iterdir()) == sorted([name, "good.png"])


@pytest.mark.parametrize("footer", FOOTERS_THAT_LIE)
def test_a_footer_that_contradicts_itself_is_refused(folder: Path, footer: str) -> None:
    with pytest.raises(ClipOperatorError, match="its footer states another number of rows than its row groups do"):
        scored(folder, "t.parquet", base64.b64decode(footer))


def test_parquet_columns_of_all_kinds_stay_as_they_are(folder: Path) -> None:
    target = scored(folder, "t.parquet", parquet(odd_columns(), row_group_size=1))
    old, new = pq.read_table(folder / "t.parquet"), pq.read_table(target)
    assert new.drop(["clip_score"]).equals(old, check_metadata=True)
    assert new["clip_score"].to_pylist() == [pytest.approx(score(), abs=1e-5)] * 2
    assert pq.read_metadata(target).num_row_groups == 2


def test_a_parquet_file_without_rows_and_row_groups_without_rows_stay(folder: Path) -> None:
    table = pq.read_table(io.BytesIO(parquet(odd_columns())))
    none = pq.read_table(scored(folder, "none.parquet", written(table.slice(0, 0))))
    assert none.drop(["clip_score"]).equals(table.slice(0, 0), check_metadata=True)
    assert pq.read_schema(scored(folder, "no-columns.parquet", written(pa.table({})))).names == ["clip_score"]
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema) as writer:
        for rows in (0, 1, 0, 1, 0):
            writer.write_table(table.slice(0, rows))
    metadata = pq.read_metadata(scored(folder, "some.parquet", sink.getvalue()))
    assert [metadata.row_group(group).num_rows for group in range(5)] == [0, 1, 0, 1, 0]


def test_a_caption_in_parquet_that_is_not_utf8_is_one_bad_row_and_stays(folder: Path) -> None:
    good = pa.array([ROW["text"]])
    text = pa.concat_arrays([good, not_utf8(), good])
    target = scored(folder, "t.parquet", parquet({"text": text}, rows=4))
    new = pq.read_table(target)
    assert [value is None for value in new["clip_score"].to_pylist()] == [False, True, True, False]
    assert new["text"].cast(pa.binary()).to_pylist()[1:3] == [b"\xff\xfe"] * 2


NO_PAIRS = {
    "not-utf8": not_utf8(),
    "far": pa.array([2**62, -(2**62)], pa.timestamp("ms")),
    "zone": pa.array([0, 1], pa.timestamp("us", "Mars/Phobos")),
    "days": pa.array([2**30, -(2**31)], pa.date32()),
    "long": pa.array([2**62, 2**61], pa.duration("s")),
    "nested": pa.ListArray.from_arrays([0, 1, 2], not_utf8()),
    "same-name": same_name_twice(),
    "path": pa.StructArray.from_arrays([not_utf8()], ["path"]),
    "bytes": pa.array([b"\xff\xfe", b"\0"]),
    "map": pa.array([[("path", "good.png")]] * 2, pa.map_(pa.string(), pa.string())),
    "numbers": pa.array([1.5, float("inf")], pa.float16()),
}


@pytest.mark.parametrize("name", NO_PAIRS)
@pytest.mark.parametrize(("key", "reason"), [("text", "text_invalid"), ("image_path", "image_unreadable")])
def test_parquet_values_that_are_neither_captions_nor_images_are_bad_rows(
    folder: Path, key: str, reason: str, name: str
) -> None:
    with pytest.raises(JobError, match=f"none of the 2 rows could be scored .*{reason}: 2"):
        scored(folder, "t.parquet", parquet({key: NO_PAIRS[name]}))


@pytest.mark.parametrize("depth", [900, 990, 100_000])
@pytest.mark.parametrize("key", ["huggingface", "pandas"])
def test_metadata_nested_without_end_does_not_stop_the_job(folder: Path, key: str, depth: int) -> None:
    nested = '{"info": {"features": {"x": ' + "[" * depth + "]" * depth + "}}}"
    table = pq.read_table(io.BytesIO(parquet({}))).replace_schema_metadata({key: nested})
    assert pq.read_metadata(scored(folder, "t.parquet", written(table))).num_rows == 2


def test_a_metadata_key_of_the_format_itself_does_not_make_the_output_unreadable(folder: Path) -> None:
    """The schema that Arrow keeps inside of a Parquet file's metadata has metadata of its own, with any keys."""
    table = pq.read_table(io.BytesIO(parquet({}))).replace_schema_metadata({"ARROW:schema": "!"})
    key, other_key = b"ARROW:schema\x18\x01!", b"ARROW-schema\x18\x01!"
    content = written(table).replace(key, other_key)
    assert pq.read_schema(io.BytesIO(content)).metadata == {b"ARROW:schema": b"!"}
    assert pq.read_table(scored(folder, "t.parquet", content)).num_rows == 2


@pytest.mark.parametrize(
    ("name", "content", "most_bytes"),
    [
        ("shared.parquet", shared_value_bomb(), 1 << 30),  # 8 MiB of text in each of 256 rows are 2 GiB
        *((name, REFUSED[name][0], 900 << 20) for name in ("bomb.json.gz", "many.jsonl", "cells.csv", "lines.csv.gz")),
        *((name, REFUSED[name][0], 900 << 20) for name in ("bomb.jsonl.gz", "string.json.gz", "bomb.csv.gz")),
    ],
)
def test_what_a_small_file_unfolds_to_is_bounded(folder: Path, name: str, content: bytes, most_bytes: int) -> None:
    (folder / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(folder / name)], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert int(done.stdout) * 1024 < most_bytes


_READ = """
import sys
from contextlib import suppress
from pathlib import Path
from clip_operator.errors import JobError
from clip_operator.tables import file_type_of, open_table
path = Path(sys.argv[1])
with suppress(JobError), open_table(path, file_type_of(path.name), ["image_path", "text"]) as table:
    table.scan()
    for chunk in table.chunks(256):
        chunk.column("image_path"), chunk.column("text")
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""
