"""What tables may take: of memory, whatever they unfold to; of time, once the job is told to stop; of words, none."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from clip_operator.errors import Cancelled, ClipOperatorError
from clip_operator.machine.stopping import stopped_by
from clip_operator.tables import cut_text, file_type_of, open_table, parquet_layout
from tests.hostile.jobs import run
from tests.hostile.parquet_bombs import (
    embeddings,
    footer_of_absurd_counts,
    inflated_page,
    lists_of_one_long_text,
    one_row_of_many_values,
)
from tests.hostile.table_files import gzip_bomb

_MOST_BYTES = 1536 << 20
_MINUTES = 300
_MB = 1 << 20
_EMOJI = "\N{GRINNING FACE}".encode()

_READ = """
import sys
from pathlib import Path
from clip_operator.errors import JobError
from clip_operator.tables import file_type_of, open_table, parquet_layout
path, problem, rows = Path(sys.argv[1]), "", 0
try:
    if path.suffix == ".parquet":
        with path.open("rb") as stream:
            parquet_layout(stream)
    with open_table(path, file_type_of(path.name), ["image_path", "text"]) as table:
        table.scan()
        for chunk in table.chunks(256):
            chunk.column("image_path"), chunk.column("text")
            rows += len(chunk)
except JobError as error:
    problem = str(error)
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
print(rows)
print(problem)
"""


def read(path: Path) -> tuple[int, int, str]:
    """Return how much memory it took to read a table in a process of its own, how many rows it gave, and what error."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True, timeout=_MINUTES
    )
    memory, rows, problem = done.stdout.split("\n", 2)
    return int(memory) * 1024, int(rows), problem.strip()


_CANNOT = "cannot be decoded in 1,024 MiB of memory"
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "values.parquet": (lambda: one_row_of_many_values(10**8), _CANNOT),
    "lists.parquet": (lambda: lists_of_one_long_text(64, 64, _MB), _CANNOT),
    "page.parquet": (lambda: inflated_page(700), _CANNOT),
    "footer.parquet": (footer_of_absurd_counts, ""),
    "few-values-too-many.parquet": (lambda: one_row_of_many_values(4_000_001), "row 1 of row group 1 has more than"),
    "row.parquet": (lambda: inflated_page(257), "row 1 of row group 1 is larger than 256 MiB"),
    "emoji.jsonl.gz": (lambda: gzip_bomb(b'{"x": "' + _EMOJI, b"x", 255), "line 1 is larger than 256 MiB"),
    "emoji.json.gz": (lambda: gzip_bomb(b'[{"x": "' + _EMOJI, b"x", 255), "element 1 is larger than 256 MiB"),
    "late-emoji.json.gz": (
        lambda: gzip_bomb(b'[{"x": "', b"x", 250) + gzip.compress(_EMOJI),
        "element 1 is larger than 256 MiB",
    ),
    "cell.csv.gz": (
        lambda: gzip_bomb(b"image_path,text\n", b"x", 200) + gzip.compress(b",a\n"),
        "the row that starts in line 2 is larger than 128 MiB",
    ),
    "cell.tsv.zst": (
        lambda: pa.compress(b"image_path\ttext\n" + b"x" * (200 * _MB), "zstd", asbytes=True),
        "the row that starts in line 2 is larger than 128 MiB",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unfolds_to_gigabytes_is_refused_in_bounded_memory(tmp_path: Path, name: str) -> None:
    build, problem = BOMBS[name]
    (tmp_path / name).write_bytes(build())
    assert (tmp_path / name).stat().st_size < _MB
    memory, _, said = read(tmp_path / name)
    assert said
    assert problem in said
    assert memory < _MOST_BYTES


@pytest.mark.parametrize(
    ("name", "build", "rows"),
    [
        ("embeddings.parquet", lambda: embeddings(12_000, 512), 12_000),  # 6 million values, 512 in a row
        ("most-values.parquet", lambda: one_row_of_many_values(3_999_000), 1),
        ("large-row.parquet", lambda: inflated_page(200), 1),
        ("image.csv.gz", lambda: gzip_bomb(b"image_path,text\n", b"x", 86) + gzip.compress(b",a\n"), 1),
        ("chinese.jsonl.gz", lambda: gzip_bomb(b'{"text": "', "字xxxxx".encode() * 32, 90) + gzip.compress(b'"}'), 1),
    ],
)
def test_large_rows_that_people_have_are_read(tmp_path: Path, name: str, build: Callable[[], bytes], rows: int) -> None:
    (tmp_path / name).write_bytes(build())
    memory, read_rows, said = read(tmp_path / name)
    assert (read_rows, said) == (rows, "")
    assert memory < _MOST_BYTES


class _CountedStop(threading.Event):
    """Is set once it was looked at so many times: what looks too seldom comes to the end of its file."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def is_set(self) -> bool:
        self._looks -= 1
        return self._looks < 0


_EMPTY_MEMBERS = gzip.compress(b"", mtime=0) * 200_000
ENDLESS: dict[str, Callable[[], bytes]] = {
    "blank.jsonl.gz": lambda: gzip_bomb(b"", b"\n", 16),
    "blank.csv.gz": lambda: gzip_bomb(b"", b"\n", 16),
    "blank.json.gz": lambda: gzip_bomb(b"[", b"\n", 16),
    "blank.jsonl": lambda: b"\n" * (16 * _MB),
    "line.jsonl.gz": lambda: gzip_bomb(b"", b"x", 64),
    "cell.csv.gz": lambda: gzip_bomb(b'"', b"x", 64),
    "string.json.gz": lambda: gzip_bomb(b'["', b"x", 64),
    "nothing.jsonl.gz": lambda: _EMPTY_MEMBERS,
    "nothing.csv.gz": lambda: _EMPTY_MEMBERS,
    "blank.jsonl.bz2": lambda: bz2.compress(b"\n" * (64 * _MB)),
    "blank.csv.xz": lambda: lzma.compress(b"\n" * (64 * _MB), preset=0),
    "blank.json.zst": lambda: pa.compress(b"[" + b"\n" * (64 * _MB), "zstd", asbytes=True),
    "nothing.jsonl.bz2": lambda: bz2.compress(b"") * 60_000,
    "nothing.csv.xz": lambda: lzma.compress(b"") * 30_000,
    "nothing.json.zst": lambda: pa.compress(b"", "zstd", asbytes=True) * 100_000,
    "zeros.tar": lambda: bytes(16 * _MB),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_whatever_is_read_ends_soon_after_the_job_is_told_to_stop(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ENDLESS[name]())
    with stopped_by(_CountedStop(8)), open_table(tmp_path / name, file_type_of(name)) as table:  # noqa: SIM117
        with pytest.raises(Cancelled):
            table.scan()


@pytest.mark.parametrize("name", [name for name in ENDLESS if not name.endswith("tar")])
def test_cutting_ends_soon_after_it_is_told_to_stop(name: str) -> None:
    with stopped_by(_CountedStop(8)), pytest.raises(Cancelled):
        cut_text(io.BytesIO(ENDLESS[name]()), file_type_of(name), 10)


def test_a_job_that_reads_blank_lines_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.gz").write_bytes(gzip_bomb(b"", b"\n", 64))
    with pytest.raises(Cancelled):
        run(tmp_path / "t.jsonl.gz", tmp_path / "out.jsonl", _CountedStop(20))
    assert not (tmp_path / "out.jsonl").exists()


SECRET = "hunter2-correct-horse"
_PASSWD = f"root:{SECRET}:0:0:{SECRET}:/root:/bin/bash\nwww:x:33:33:{SECRET}, the other:/var:/bin/sh\n"
NOT_TABLES: dict[str, bytes] = {
    f"{kind}.{ending}": gzip.compress(content) if ending.endswith(".gz") else content
    for kind, content in {
        "passwd": _PASSWD.encode(),
        "token": SECRET.encode(),
        "settings": f'{{"auths": {{"host": "{SECRET}"}}}}\nmore: {SECRET}'.encode(),
        "list": f'["{SECRET}", "{SECRET}"]'.encode(),
        "cut": f'[{{}}, {{"x": "{SECRET}'.encode(),
        "behind": f"[{{}}] {SECRET}".encode(),
        "between": f"[{{}} {SECRET}]".encode(),
        "latin": f"{SECRET}\xe9\n".encode("latin-1"),
        "quotes": f'a,"{SECRET}\n"{SECRET}" {SECRET},'.encode(),
        "key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n{SECRET},{SECRET}\n".encode(),
        "deep": f'{{"{SECRET}": {"[" * 100_000}'.encode(),
    }.items()
    for ending in ("jsonl", "json", "csv", "parquet", "tar", "jsonl.gz", "json.gz", "csv.gz")
}


@pytest.mark.parametrize("name", NOT_TABLES)
def test_an_error_quotes_nothing_of_a_file_that_is_no_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (tmp_path / name).write_bytes(NOT_TABLES[name])
    target = tmp_path / f"out.{'parquet' if 'parquet' in name else 'jsonl'}"
    with caplog.at_level(logging.DEBUG), pytest.raises(ClipOperatorError) as caught:
        run(tmp_path / name, target)
    said = [repr(error) for error in chain_of(caught.value)]
    assert SECRET not in "\n".join([*said, caplog.text])
    assert SECRET not in b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name != name).decode()


def test_files_of_one_table_that_differ_are_told_apart_without_a_quote(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image_path,text\nx,y\n")
    (tmp_path / "b.csv").write_text(_PASSWD)
    with pytest.raises(ClipOperatorError, match=r"b\.csv: its header is not that of a\.csv: it names 1 col") as caught:
        run(tmp_path / "*.csv", tmp_path.parent / f"{tmp_path.name}.jsonl")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("image_path,title", "'image_path', 'title'"),
        ("url,caption,hunter2", "'url', 'caption' and 1 others"),
        ("hunter2,x", "2 columns have other names, left unsaid here"),
    ],
)
def test_a_csv_header_is_shown_where_it_is_one(tmp_path: Path, header: str, names: str) -> None:
    with (tmp_path / "t.csv").open("w") as file:
        csv.writer(file).writerows([header.split(","), ["a"]])
    with pytest.raises(ClipOperatorError, match="has no column") as caught:
        run(tmp_path / "t.csv", tmp_path / "out.csv")
    assert names in str(caught.value)


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what a report of it shows it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_layout_is_read_without_decoding_rows(tmp_path: Path) -> None:
    with io.BytesIO(one_row_of_many_values(4_000_001)) as stream:
        assert parquet_layout(stream).rows == 1


def test_a_header_that_every_row_would_repeat_is_refused(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(f"image_path,text,{'x' * (1 << 20)}\n" + "a.png,a\n" * 3)
    with pytest.raises(ClipOperatorError, match="the header is larger than 1 MiB"):
        run(tmp_path / "t.csv.gz", tmp_path / "out.jsonl")


def test_a_scan_remembers_no_names_without_end(tmp_path: Path) -> None:
    rows = [{"image_path": "a.png", "text": "a", f"{number}{'x' * 2000}": 1} for number in range(3)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_table(tmp_path / "t.jsonl", file_type_of("t.jsonl")) as reader:
        assert reader.scan().columns == ("image_path", "text")


def test_a_plan_of_eight_megabytes_of_lists_takes_no_gigabyte_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"shards":[' + "[]," * 2_600_000 + "[]]}")
    code = (
        "import resource\nfrom clip_operator.errors import JobError\nfrom clip_operator.sharding import read_plan\n"
        "from clip_operator.storage import Storage\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
        f"try:\n    read_plan({str(tmp_path / 'plan.json')!r}, Storage())\nexcept JobError as error:\n    print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-400:]
    assert "is not what the plan task has written there" in ended.stdout
